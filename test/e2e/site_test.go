package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// runSite is the program that the apps of these tests run: it says who answers. It is well-behaved, so that
// each request that is lost was lost by Spillway: it finishes open requests when it is asked to end.
//
//	FAIL=all          every request is answered 500, except the probe
//	FAIL=POST         every POST is
//	FAIL=after 300    every request is, after so many that were fine
//	DELAY=50ms        every answer takes this much longer
//	SPREAD=0.8        DELAY is the median, and this the sigma, of a log-normal distribution
//	START=1s          it listens this much later
//	SOCKETS=abandon   it ends without a word to its sockets
//	PEER_URL          set for a service that needs peer: it is asked too, and its answer is part of ours
func runSite() int {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	wait("START")
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		log.Print(err)
		return 1
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	live := &streams{over: make(chan struct{})}
	mux.HandleFunc("GET /socket", live.serveSocket)
	mux.HandleFunc("GET /events", live.serveEvents)
	mux.HandleFunc("/", serveSite)
	server := &http.Server{Handler: mux}
	server.RegisterOnShutdown(live.end)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ends with server; waited for here
	select {
	case err := <-ended:
		log.Print(err)
		return 1
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		log.Print(err)
		return 1
	}
	live.open.Wait()
	return 0
}

// wait lets the time pass that a variable of the environment says, if it says any.
func wait(variable string) {
	if d, err := time.ParseDuration(os.Getenv(variable)); err == nil {
		<-time.After(d)
	}
}

// delay lets the time pass that DELAY and SPREAD say.
func delay() {
	sigma, err := strconv.ParseFloat(os.Getenv("SPREAD"), 64)
	if err != nil {
		wait("DELAY")
		return
	}
	median, _ := time.ParseDuration(os.Getenv("DELAY"))
	<-time.After(time.Duration(float64(median) * math.Exp(sigma*rand.NormFloat64())))
}

// asked counts the requests that a site that fails after some of them has had.
var asked atomic.Int64

// failing reports whether FAIL makes a request fail.
func failing(method string) bool {
	fail := os.Getenv("FAIL")
	if after, ok := strings.CutPrefix(fail, "after "); ok {
		n, _ := strconv.ParseInt(after, 10, 64)
		return asked.Add(1) > n
	}
	return fail == "all" || fail == method
}

// says is what a site answers.
type says struct {
	Release string `json:"release"`
	Replica string `json:"replica"`
	N       string `json:"n"`              // variable N, which tells releases apart
	Peer    *says  `json:"peer,omitempty"` // what the tier behind it answered
}

func serveSite(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	delay()
	if failing(r.Method) {
		log.Printf("failing on purpose: %s", r.Method)
		http.Error(w, "failing on purpose", http.StatusInternalServerError)
		return
	}
	answer := says{Release: os.Getenv("SPILLWAY_RELEASE"), Replica: os.Getenv("SPILLWAY_REPLICA"), N: os.Getenv("N")}
	if peer := os.Getenv("PEER_URL"); peer != "" {
		answer.Peer = new(says)
		if err := fetch(r.Context(), peer, answer.Peer); err != nil {
			log.Printf("peer: %v", err)
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	json.NewEncoder(w).Encode(answer)
}

// fetch gets a JSON value.
func fetch(ctx context.Context, url string, v any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(v)
}
