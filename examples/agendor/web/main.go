// Command web is the new stack of agendor: the tier that visitors meet. It says who answered, and what the
// api behind it said. It misbehaves on purpose when its environment says so: see README.md.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// answer is what a visitor gets.
type answer struct {
	Stack   string         `json:"stack"` // "new", unlike that of the legacy servers
	Title   string         `json:"title"` // TITLE of the environment
	Release string         `json:"release"`
	Replica string         `json:"replica"`
	Track   string         `json:"track,omitempty"`
	API     map[string]any `json:"api"` // what the api answered
}

type web struct {
	fail   float64       // FAIL=0.1: this share of the requests is answered 500
	slow   time.Duration // SLOW=100ms: every answer takes this much longer
	client http.Client
}

func main() {
	log.SetFlags(0) // Spillway stamps every line
	port := flag.String("port", "8080", "`port` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := &web{client: http.Client{Timeout: 5 * time.Second}}
	var err error
	if s := os.Getenv("FAIL"); s != "" {
		if w.fail, err = strconv.ParseFloat(s, 64); err != nil {
			log.Fatalf("FAIL=%s: want a share of the requests, like 0.1 or 1", s)
		}
	}
	if s := os.Getenv("SLOW"); s != "" {
		if w.slow, err = time.ParseDuration(s); err != nil {
			log.Fatalf("SLOW=%s: want a duration, like 100ms", s)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("/", w.home)
	if err := serve(ctx, net.JoinHostPort(os.Getenv("HOST"), *port), mux); err != nil {
		log.Fatal(err)
	}
}

// serve answers requests until it is asked to end, and then finishes those that are open.
func serve(ctx context.Context, address string, handler http.Handler) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	log.Printf("listening on %s", listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ends with server; serve waits for it here
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return server.Shutdown(limit)
}

// healthz answers the probe.
func healthz(w http.ResponseWriter, _ *http.Request) {
	if os.Getenv("NEVER_READY") == "1" {
		http.Error(w, "cannot reach the database, on purpose (NEVER_READY=1)", http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
}

func (b *web) home(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(b.slow):
	case <-r.Context().Done():
		return
	}
	if b.fail > rand.Float64() {
		log.Printf("%s %s: failing on purpose (FAIL=%g)", r.Method, r.URL.Path, b.fail)
		http.Error(w, "this release is broken on purpose", http.StatusInternalServerError)
		return
	}
	a := answer{
		Stack: "new", Title: os.Getenv("TITLE"), Release: os.Getenv("SPILLWAY_RELEASE"),
		Replica: os.Getenv("SPILLWAY_REPLICA"), Track: os.Getenv("SPILLWAY_TRACK"),
	}
	if err := b.ask(r.Context(), &a.API); err != nil {
		if r.Context().Err() == nil {
			log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		http.Error(w, "the api does not answer", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(a)
}

// ask asks the api of our own release.
func (b *web) ask(ctx context.Context, v any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, os.Getenv("API_URL")+"/", nil)
	if err != nil {
		return err
	}
	response, err := b.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the api answered %s", response.Status)
	}
	return json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(v)
}
