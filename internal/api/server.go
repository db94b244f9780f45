package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spillway-dev/spillway"
)

// The names of what the server keeps in the state directory.
const (
	SocketName = "spillway.sock" // who may write to this unix socket may do everything
	TokenName  = "token"         // the token of this machine's administrator, for use over TCP
)

// Bounds of a request and of the server.
const (
	maxHeader     = 64 << 10
	maxBody       = 1 << 20
	maxSource     = 512 << 20 // the gzipped source of a deploy
	headerTimeout = 10 * time.Second
	// strangerTimeout bounds how long a caller may take for its request until we know who it is.
	strangerTimeout = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	stopTimeout     = 10 * time.Second // for answers under way when the server stops
)

// Config is what a server needs.
type Config struct {
	Engine Engine
	Log    *slog.Logger
	Dir    string   // state directory: the socket and the tokens are there
	Listen string   // TCP address, "127.0.0.1:7300"; "" = only the socket
	Hosts  []string // names besides localhost under which browsers may reach Listen: "deploy.example.com"
}

// Server answers the API.
type Server struct {
	engine    Engine
	log       *slog.Logger
	config    Config
	routes    []route
	mux       *http.ServeMux
	listeners []net.Listener
	guard     guard
}

// NewServer makes a server that does nothing yet.
func NewServer(c Config) *Server {
	s := &Server{engine: c.Engine, log: c.Log, config: c, routes: routes(), mux: http.NewServeMux()}
	for _, r := range s.routes {
		s.mux.Handle(r.method+" "+r.path, s.serve(r))
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, fmt.Errorf("there is no %s %s; GET /v1/openapi.json lists what there is: %w", r.Method, r.URL.Path, spillway.ErrNotFound))
	})
	return s
}

// Listen takes the socket and the TCP address and reads the tokens, so that what is wrong with them is
// known before anything runs, and so that Addr is. Run does it when the caller did not.
func (s *Server) Listen(ctx context.Context) error {
	tokens, err := openTokens(s.config.Dir, time.Now())
	if err != nil {
		return err
	}
	socket, err := listenSocket(ctx, filepath.Join(s.config.Dir, SocketName))
	if err != nil {
		return err
	}
	s.listeners = []net.Listener{socket}
	s.guard = newGuard(tokens, s.config.Listen, s.config.Hosts)
	if s.config.Listen == "" {
		return nil
	}
	tcp, err := listenTCP(ctx, s.config.Listen)
	if err != nil {
		s.listeners = nil
		return errors.Join(err, socket.Close())
	}
	s.listeners = append(s.listeners, tcp)
	return nil
}

// Close gives up what Listen took, where Run does not: what was to run beside it failed before. It may be called after Run.
func (s *Server) Close() error {
	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Addr is the TCP address after Listen, with the port that the system chose when Config.Listen has port
// 0; "" when there is none.
func (s *Server) Addr() string {
	if len(s.listeners) < 2 {
		return ""
	}
	return s.listeners[1].Addr().String()
}

// Run answers until ctx ends, or until it cannot any more. Then streams and builds under way are ended,
// and other answers get some seconds. It runs once.
func (s *Server) Run(ctx context.Context) error {
	if s.listeners == nil {
		if err := s.Listen(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           http.HandlerFunc(s.handle),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       strangerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // mostly peers that hang up
	}
	s.log.Info("the API answers", "socket", filepath.Join(s.config.Dir, SocketName), "address", s.Addr())
	ended := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		// Owned by Run, ended by Shutdown below or by a fault of the listener; Run waits for each.
		go func() { ended <- server.Serve(l) }()
	}
	running, fault := len(s.listeners), error(nil)
	select {
	case <-ctx.Done():
	case fault = <-ended:
		running--
	}
	cancel()
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer done()
	if err := server.Shutdown(grace); err != nil {
		s.log.Warn("requests were cut off", "error", err)
		fault = errors.Join(fault, server.Close())
	}
	for range running {
		<-ended
	}
	return fault
}

// handle is what every request goes through, whatever it asks for.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	answer := &answerWriter{ResponseWriter: w}
	w = answer
	defer s.rescue(answer, r)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if r.URL.Path == "/healthz" { // for those who only want to know whether we are there
		_, _ = w.Write([]byte("ok\n"))
		return
	}
	by, err := s.guard.admit(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	// A caller that we know may take its time: a deploy uploads, a follower stays.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not supported means: no deadline is set
	s.mux.ServeHTTP(w, r.WithContext(withCaller(r.Context(), by)))
}

// rescue makes a panic of a handler the failure of one request.
func (s *Server) rescue(w *answerWriter, r *http.Request) {
	fault := recover()
	if fault == nil {
		return
	}
	if fault == http.ErrAbortHandler {
		panic(fault)
	}
	s.log.Error("a request failed by a fault of ours", "method", r.Method, "path", r.URL.Path, "fault", fault, "stack", string(debug.Stack()))
	if w.began {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	s.fail(w, r, errors.New("internal error; the log of the server has the details"))
}

// refuse answers a caller that may not go on.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.log.Warn("request refused", "method", r.Method, "path", r.URL.Path, "peer", r.RemoteAddr, "reason", err)
	w.Header().Set("Connection", "close") // its body is not worth reading
	if errors.Is(err, errNoToken) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="spillway"`)
		e, _ := wire(err)
		s.write(w, r, http.StatusUnauthorized, failure{e})
		return
	}
	s.fail(w, r, err)
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, status := wire(err)
	if e.Kind == kindInternal {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	s.write(w, r, status, failure{e})
}

// failure is the body of every answer that is an error.
type failure struct {
	Error Error `json:"error"`
}

// write answers with one JSON document.
func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types always marshal
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(text, '\n')); err != nil {
		s.log.Debug("the answer did not arrive", "path", r.URL.Path, "error", err)
	}
}

// answerWriter remembers whether an answer was begun.
type answerWriter struct {
	http.ResponseWriter
	began bool
}

func (w *answerWriter) WriteHeader(status int) {
	w.began = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *answerWriter) Write(p []byte) (int, error) {
	w.began = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the real writer.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
