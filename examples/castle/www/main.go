// Command www is the public tier of the castle: a page that shows which release and which replica
// answered, and what the backend behind it said.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

//go:embed page.html
var pageText string

// answer is what a visitor gets, as JSON and on the page.
type answer struct {
	Greeting string         `json:"greeting"`
	Release  string         `json:"release"`
	Replica  string         `json:"replica"`
	Backend  map[string]any `json:"backend"` // what the backend answered
	Guess    string         `json:"guess,omitempty"`
}

type castle struct {
	page    *template.Template
	client  *http.Client
	backend string // URL of the backend of our own release
}

func main() {
	log.SetFlags(0) // Spillway stamps every line
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f := readFaults()
	c := castle{
		page:    template.Must(template.New("page").Parse(pageText)),
		client:  &http.Client{Timeout: 5 * time.Second},
		backend: os.Getenv("BACKEND_URL"),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", f.healthz)
	mux.HandleFunc("GET /{$}", f.wrap(c.home))
	mux.HandleFunc("GET /api/hello", f.wrap(c.hello))
	mux.HandleFunc("POST /guess", f.wrap(c.guess))
	if err := serve(ctx, f, mux); err != nil {
		log.Fatal(err)
	}
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

// ask asks the backend and makes an answer of it.
func (c castle) ask(ctx context.Context) (answer, error) {
	a := answer{Greeting: os.Getenv("GREETING"), Release: os.Getenv("SPILLWAY_RELEASE"), Replica: os.Getenv("SPILLWAY_REPLICA")}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.backend+"/", nil)
	if err != nil {
		return a, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return a, fmt.Errorf("the backend answered %s", response.Status)
	}
	return a, json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&a.Backend)
}

func (c castle) home(w http.ResponseWriter, r *http.Request) { c.render(w, r, "") }

// guess says whether a guess is the number that the castle hides.
func (c castle) guess(w http.ResponseWriter, r *http.Request) {
	const hidden = 7
	n, err := strconv.Atoi(r.PostFormValue("n"))
	switch {
	case err != nil:
		http.Error(w, "guess a number from 1 to 10: n=5", http.StatusBadRequest)
	case n < hidden:
		c.render(w, r, fmt.Sprintf("%d is too low.", n))
	case n > hidden:
		c.render(w, r, fmt.Sprintf("%d is too high.", n))
	default:
		c.render(w, r, fmt.Sprintf("%d it is. The gate opens.", n))
	}
}

func (c castle) render(w http.ResponseWriter, r *http.Request, guess string) {
	a, err := c.ask(r.Context())
	if err != nil {
		c.sorry(w, r, err)
		return
	}
	a.Guess = guess
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := c.page.Execute(w, a); err != nil {
		log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
	}
}

func (c castle) hello(w http.ResponseWriter, r *http.Request) {
	a, err := c.ask(r.Context())
	if err != nil {
		c.sorry(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(a)
}

// sorry answers when the backend did not. A visitor who went away is not worth a line in the log.
func (c castle) sorry(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	http.Error(w, "the backend does not answer", http.StatusBadGateway)
}
