// Command backend is the private tier of the castle. Only www reaches it.
package main

import (
	"context"
	"encoding/json"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f := readFaults()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", f.healthz)
	mux.HandleFunc("GET /{$}", f.wrap(home))
	if err := serve(ctx, f, mux); err != nil {
		log.Fatal(err)
	}
}

func home(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]string{
		"service": "backend",
		"release": os.Getenv("SPILLWAY_RELEASE"),
		"replica": os.Getenv("SPILLWAY_REPLICA"),
		"word":    "All is quiet on the walls.",
	})
}

// serve answers requests until it is asked to end, and then finishes those that are open.
func serve(ctx context.Context, f faults, handler http.Handler) error {
	listener, err := net.Listen("tcp", f.address())
	if err != nil {
		return err
	}
	log.Printf("%s listens on %s", os.Getenv("SPILLWAY_REPLICA"), listener.Addr())
	if f.crash > 0 {
		time.AfterFunc(f.crash, func() { log.Fatalf("crashing on purpose (CRASH=%s)", f.crash) })
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ends with server; main waits for it here
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	log.Print("asked to end; finishing the open requests")
	limit, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return server.Shutdown(limit)
}
