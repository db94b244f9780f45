package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rpc is the service of gRPC's own interoperability tests, as far as these tests need it.
type rpc struct {
	grpc_testing.UnimplementedTestServiceServer
}

// runRPC is a gRPC server on $HOST:$PORT, until it is asked to end; then it finishes its open calls.
func runRPC() int {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		log.Print(err)
		return 1
	}
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, rpc{})
	context.AfterFunc(ctx, server.GracefulStop)
	if err := server.Serve(listener); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

// UnaryCall sends back the caller's metadata "echo" in the header and in the trailer, and the status that it asks for.
func (rpc) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.MD{"echo-header": md["echo"]})
	_ = grpc.SetTrailer(ctx, metadata.MD{"echo-trailer-bin": md["echo"]})
	if s := in.GetResponseStatus(); s.GetCode() != 0 {
		return nil, status.Error(codes.Code(s.Code), s.Message)
	}
	if in.GetFillServerId() { // it takes longer than anybody waits
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: make([]byte, in.GetResponseSize())}, Username: os.Getenv("SPILLWAY_RELEASE")}, nil
}

// StreamingOutputCall sends messages of the sizes that the caller names.
func (rpc) StreamingOutputCall(in *grpc_testing.StreamingOutputCallRequest, out grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	for _, p := range in.GetResponseParameters() {
		if err := out.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, p.Size)}}); err != nil {
			return err
		}
	}
	return nil
}

// StreamingInputCall adds up the sizes of what it gets.
func (rpc) StreamingInputCall(in grpc.ClientStreamingServer[grpc_testing.StreamingInputCallRequest, grpc_testing.StreamingInputCallResponse]) error {
	sum := 0
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return in.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(m.GetPayload().GetBody())
	}
}

// FullDuplexCall answers each message with one of its body, and a status when it is asked for one.
func (rpc) FullDuplexCall(s grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	s.SetTrailer(metadata.Pairs("echo-trailer-bin", "\x00\xff"))
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if st := m.GetResponseStatus(); st.GetCode() != 0 {
			return status.Error(codes.Code(st.Code), st.Message)
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: m.GetPayload()}); err != nil {
			return err
		}
	}
}

// TestGRPC makes real calls of all four kinds, first to the server itself, which shows what is right, and
// then to an app of `protocol: grpc`.
func TestGRPC(t *testing.T) {
	t.Run("without Spillway between", func(t *testing.T) {
		address := freeAddress(t)
		host, port, _ := net.SplitHostPort(address)
		server := exec.Command(self, "rpc")
		server.Env = append(os.Environ(), "HOST="+host, "PORT="+port)
		server.Stderr = os.Stderr
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			server.Process.Signal(syscall.SIGTERM)
			server.Wait()
		})
		callAll(t, address, insecure.NewCredentials())
	})
	t.Run("through the proxy", func(t *testing.T) {
		in := installTLS(t)
		dir := t.TempDir()
		certifyFor(t, dir, "rpc.localhost")
		file := func(n int) {
			writeFile(t, filepath.Join(dir, "spillway.yaml"), fmt.Sprintf("app: rpc\nservices:\n  web:\n    run: [%s, rpc]\n    protocol: grpc\n    host: rpc.localhost\n    tls: {cert: %q, key: %q}\n    scale: 2\n    env: {N: \"%d\"}\nwatch: 1s\n",
				self, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), n))
		}
		file(1)
		in.spillway("deploy", dir).want(t, 0)
		pem, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		secure := credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "rpc.localhost"})
		callAll(t, in.https, secure)
		t.Run("across a deploy", func(t *testing.T) {
			calls := keepCalling(t, in.https, secure)
			file(2)
			in.spillway("deploy", dir).want(t, 0)
			calls("2")
		})
	})
}

// rpcClient connects with the host name of the app, whatever the address.
func rpcClient(t *testing.T, address string, c credentials.TransportCredentials) grpc_testing.TestServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(c), grpc.WithAuthority("rpc.localhost"), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return grpc_testing.NewTestServiceClient(conn)
}

func callAll(t *testing.T, address string, c credentials.TransportCredentials) {
	client := rpcClient(t, address, c)
	for _, call := range []struct {
		name string
		make func(context.Context, *testing.T, grpc_testing.TestServiceClient)
	}{
		{"unary", unary}, {"large unary", largeUnary}, {"status", wantedStatus}, {"not there", notThere}, {"deadline", deadline},
		{"server streaming", serverStreaming}, {"client streaming", clientStreaming}, {"both streaming", bothStreaming}, {"cancelled", cancelled},
		{"many messages", manyMessages}, {"many cancelled", manyCancelled},
	} {
		t.Run(call.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			call.make(ctx, t, client)
		})
	}
}

func unary(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	var header, trailer metadata.MD
	ctx = metadata.AppendToOutgoingContext(ctx, "echo", "hello")
	m, err := c.UnaryCall(ctx, &grpc_testing.SimpleRequest{ResponseSize: 10}, grpc.Header(&header), grpc.Trailer(&trailer), grpc.WaitForReady(true))
	if err != nil || len(m.GetPayload().GetBody()) != 10 {
		t.Fatalf("%v %v", m, err)
	}
	if got := fmt.Sprint(header["echo-header"], trailer["echo-trailer-bin"]); got != "[hello] [hello]" {
		t.Errorf("header and trailer: %s", got)
	}
}

func largeUnary(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	m, err := c.UnaryCall(ctx, &grpc_testing.SimpleRequest{ResponseSize: 3 << 20, Payload: &grpc_testing.Payload{Body: make([]byte, 3<<20)}})
	if err != nil || len(m.GetPayload().GetBody()) != 3<<20 {
		t.Errorf("%d bytes, %v", len(m.GetPayload().GetBody()), err)
	}
}

func wantStatus(t *testing.T, err error, code codes.Code, message string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), message) {
		t.Errorf("status %s %q, want %s %q", s.Code(), s.Message(), code, message)
	}
}

func wantedStatus(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	for _, code := range []codes.Code{codes.Unknown, codes.InvalidArgument, codes.NotFound, codes.ResourceExhausted, codes.Unavailable, codes.Internal} {
		message := "told: ä\n\t☺ 100%"
		var trailer metadata.MD
		_, err := c.UnaryCall(metadata.AppendToOutgoingContext(ctx, "echo", "x"), &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: int32(code), Message: message}}, grpc.Trailer(&trailer))
		wantStatus(t, err, code, message)
		if got := fmt.Sprint(trailer["echo-trailer-bin"]); got != "[x]" {
			t.Errorf("%s: trailer %s", code, got)
		}
	}
}

func notThere(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	_, err := c.UnimplementedCall(ctx, &grpc_testing.Empty{})
	wantStatus(t, err, codes.Unimplemented, "")
}

func deadline(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := c.UnaryCall(ctx, &grpc_testing.SimpleRequest{FillServerId: true})
	wantStatus(t, err, codes.DeadlineExceeded, "")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func serverStreaming(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	sizes := []int32{1, 50_000, 0, 300_000, 7}
	in := &grpc_testing.StreamingOutputCallRequest{}
	for _, n := range sizes {
		in.ResponseParameters = append(in.ResponseParameters, &grpc_testing.ResponseParameters{Size: n})
	}
	s, err := c.StreamingOutputCall(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range sizes {
		if m, err := s.Recv(); err != nil || len(m.GetPayload().GetBody()) != int(n) {
			t.Fatalf("message %d: %d bytes, %v", i, len(m.GetPayload().GetBody()), err)
		}
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

func clientStreaming(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	s, err := c.StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := s.Send(&grpc_testing.StreamingInputCallRequest{Payload: &grpc_testing.Payload{Body: make([]byte, 5000)}}); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := s.CloseAndRecv(); err != nil || m.AggregatedPayloadSize != 500_000 {
		t.Errorf("%v %v", m, err)
	}
}

// bothStreaming sends each message when the last one has come back: nothing may be held up on the way.
func bothStreaming(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		word := fmt.Sprint("word ", i)
		if err := s.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte(word)}}); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Recv(); err != nil || string(m.GetPayload().GetBody()) != word {
			t.Fatalf("%s came back as %q, %v", word, m.GetPayload().GetBody(), err)
		}
	}
	if err := s.Send(&grpc_testing.StreamingOutputCallRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: int32(codes.Aborted), Message: "enough"}}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	wantStatus(t, err, codes.Aborted, "enough")
	if got := s.Trailer()["echo-trailer-bin"]; len(got) != 1 || got[0] != "\x00\xff" {
		t.Errorf("trailer %q", got)
	}
}

// manyMessages is a stream of small messages, and one that is answered message by message: a client of gRPC sends pings and
// makes room between them, which is no flood.
func manyMessages(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	const messages = 20_000
	parameters := make([]*grpc_testing.ResponseParameters, messages)
	for i := range parameters {
		parameters[i] = &grpc_testing.ResponseParameters{Size: 10}
	}
	stream, err := c.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{ResponseParameters: parameters})
	if err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		if _, err := stream.Recv(); err != nil {
			t.Fatalf("message %d of %d: %v", i+1, messages, err)
		}
	}
	both, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range messages / 4 {
		if err := both.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte("x")}}); err != nil {
			t.Fatalf("message %d: %v", i+1, err)
		}
		if _, err := both.Recv(); err != nil {
			t.Fatalf("answer %d: %v", i+1, err)
		}
	}
}

// manyCancelled takes calls back after their first message, one after the other on one connection.
func manyCancelled(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	for i := range 1_000 {
		call, cancel := context.WithCancel(ctx)
		stream, err := c.FullDuplexCall(call)
		if err == nil {
			err = stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte("x")}})
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if cancel(); err != nil {
			t.Fatalf("call %d: %v", i+1, err)
		}
	}
}

func cancelled(ctx context.Context, t *testing.T, c grpc_testing.TestServiceClient) {
	ctx, cancel := context.WithCancel(ctx)
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte("a")}})
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = s.Recv()
	wantStatus(t, err, codes.Canceled, "")
}

// keepCalling makes calls until it is told which release has to answer in the end. None may fail.
func keepCalling(t *testing.T, address string, c credentials.TransportCredentials) (until func(release string)) {
	t.Helper()
	client := rpcClient(t, address, c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	n, last := 0, ""
	go func() { // ends with ctx; until waits, and so does the end of the test
		defer close(ended)
		for ctx.Err() == nil {
			m, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{}, grpc.WaitForReady(true))
			switch {
			case err == nil:
				n, last = n+1, m.GetUsername()
			case ctx.Err() == nil:
				t.Errorf("call %d: %v", n, err)
				pause()
			}
		}
	}()
	stop := func() { cancel(); <-ended }
	t.Cleanup(stop)
	return func(release string) {
		stop()
		if last != release || n < 10 {
			t.Errorf("%d calls, the last one answered by release %q, want %q", n, last, release)
		}
		t.Logf("%d calls", n)
	}
}
