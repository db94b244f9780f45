// Command triggers says which release answers. It can be asked for an answer that takes a while, and it
// misbehaves on purpose when its environment says so: see README.md.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0) // Spillway stamps every line
	port := flag.String("port", "8080", "`port` to listen on")
	flag.Parse()
	if d, err := time.ParseDuration(os.Getenv("START")); err == nil {
		<-time.After(d) // a program that takes its time to start, on purpose
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthcheck", healthcheck)
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("/", home)
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

// healthcheck is what decides whether a colour may go live.
func healthcheck(w http.ResponseWriter, _ *http.Request) {
	if os.Getenv("NEVER_READY") == "1" {
		http.Error(w, "waiting for the message bus, on purpose (NEVER_READY=1)", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "online")
}

// answer is what a visitor gets.
type answer struct {
	Version string `json:"version"` // VERSION of the environment
	Release string `json:"release"`
	Replica string `json:"replica"`
	Scheme  string `json:"scheme"` // by which the visitor came
}

func home(w http.ResponseWriter, r *http.Request) {
	if fail := os.Getenv("FAIL"); fail == "1" || fail == r.Method {
		log.Printf("%s %s: failing on purpose (FAIL=%s)", r.Method, r.URL.Path, fail)
		http.Error(w, "this release is broken on purpose", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer{
		os.Getenv("VERSION"), os.Getenv("SPILLWAY_RELEASE"), os.Getenv("SPILLWAY_REPLICA"), r.Header.Get("X-Forwarded-Proto"),
	})
}

// slow answers a line every 100 ms for as long as it is asked: /slow?for=3s. An open request like this one
// outlives the switch to another colour.
func slow(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.FormValue("for"))
	if err != nil || d < 0 || d > time.Minute {
		http.Error(w, "say how long, up to a minute: /slow?for=3s", http.StatusBadRequest)
		return
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		fmt.Fprintf(w, "release %s\n", os.Getenv("SPILLWAY_RELEASE"))
		http.NewResponseController(w).Flush()
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
	fmt.Fprintln(w, "done")
}
