package main

import (
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"
)

// faults are the ways in which this program misbehaves on purpose, so that a bad release can be tried.
// The backend has the same file: the two are programs of their own, with nothing in common.
type faults struct {
	fail       float64       // FAIL=0.1: this share of the requests is answered 500
	slow       time.Duration // SLOW=300ms: every answer takes this much longer
	crash      time.Duration // CRASH=10s: the program ends by itself after this time
	neverReady bool          // NEVER_READY=1: /healthz answers 503
	wrongPort  bool          // WRONG_PORT=1: it listens on a port that nobody knows
}

// readFaults reads the switches from the environment. A value that cannot be read ends the program.
func readFaults() faults {
	f := faults{neverReady: os.Getenv("NEVER_READY") == "1", wrongPort: os.Getenv("WRONG_PORT") == "1"}
	var err error
	if s := os.Getenv("FAIL"); s != "" {
		if f.fail, err = strconv.ParseFloat(s, 64); err != nil {
			log.Fatalf("FAIL=%s: want a share of the requests, like 0.1 or 1", s)
		}
	}
	f.slow = readDuration("SLOW")
	f.crash = readDuration("CRASH")
	return f
}

func readDuration(name string) time.Duration {
	s := os.Getenv(name)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		log.Fatalf("%s=%s: want a duration, like 300ms or 10s", name, s)
	}
	return d
}

// wrap makes a handler as slow and as wrong as the switches say.
func (f faults) wrap(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if f.slow > 0 {
			select {
			case <-time.After(f.slow):
			case <-r.Context().Done():
				return
			}
		}
		if f.fail > rand.Float64() {
			log.Printf("%s %s: failing on purpose (FAIL=%g)", r.Method, r.URL.Path, f.fail)
			http.Error(w, "this release is broken on purpose", http.StatusInternalServerError)
			return
		}
		next(w, r)
	}
}

// healthz answers the probe.
func (f faults) healthz(w http.ResponseWriter, _ *http.Request) {
	if f.neverReady {
		http.Error(w, "never ready, on purpose (NEVER_READY=1)", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ok\n"))
}

// address is where to listen.
func (f faults) address() string {
	if f.wrongPort {
		return os.Getenv("HOST") + ":0"
	}
	return os.Getenv("HOST") + ":" + os.Getenv("PORT")
}
