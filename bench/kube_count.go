package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// counter is a way to the API server that counts what goes through it, by what is asked: "apply deployments". Watches
// are counted once each.
type counter struct {
	server *http.Server
	url    string

	mu    sync.Mutex
	calls map[string]int
	first map[string]time.Time // of each path that was written to, since the last take
}

// startCounter serves on a port of its own until close. Callers need no certificate.
func (c *cluster) startCounter() (*counter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &counter{url: "http://" + l.Addr().String(), calls: map[string]int{}, first: map[string]time.Time{}}
	way := httputil.NewSingleHostReverseProxy(c.at)
	way.Transport, way.FlushInterval = c.http.Transport, -1
	way.ErrorLog = log.New(io.Discard, "", 0) // watches that end
	n.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.count(r)
		r.Header.Del("X-Forwarded-For")
		way.ServeHTTP(w, r)
	})}
	// Owned by the counter; ends with close.
	go func() {
		if err := n.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "bench: counting calls:", err)
		}
	}()
	return n, nil
}

func (n *counter) close() { n.server.Close() }

func (n *counter) count(r *http.Request) {
	what := callOf(r)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[what]++
	if r.Method != http.MethodGet {
		if _, seen := n.first[r.URL.Path]; !seen {
			n.first[r.URL.Path] = time.Now()
		}
	}
}

// callOf names a call: its verb and its resource.
func callOf(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		parts = parts[3:]
	default:
		return "discover"
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	resource, verb := parts[0], strings.ToLower(r.Method)
	if len(parts) > 2 {
		resource += "/" + parts[2]
	}
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Has("watch"):
		verb = "watch"
	case r.Method == http.MethodGet && len(parts) == 1:
		verb = "list"
	case r.Method == http.MethodPatch && strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch"):
		verb = "apply"
	case r.Method == http.MethodPost:
		verb = "create"
	case r.Method == http.MethodPut:
		verb = "update"
	}
	return verb + " " + resource
}

// take gives the calls since the last take, without those of the leader's lease.
func (n *counter) take() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	calls := n.calls
	n.calls, n.first = map[string]int{}, map[string]time.Time{}
	maps.DeleteFunc(calls, func(what string, _ int) bool { return strings.HasSuffix(what, " leases") })
	return calls
}

// wrote is when a path that begins so was first written to since the last take.
func (n *counter) wrote(prefix string) (at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for path, t := range n.first {
		if strings.HasPrefix(path, prefix) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}

// kubeconfig writes a file that leads to the counter.
func (n *counter) kubeconfig(file, namespace string) error {
	return os.WriteFile(file, fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: counted,
 contexts: [{name: counted, context: {cluster: counted, user: nobody, namespace: %s}}], clusters: [{name: counted, cluster: {server: %q}}], users: [{name: nobody, user: {}}]}
`, namespace, n.url), 0o600)
}

// sumOf is how many calls there were.
func sumOf(calls map[string]int) (sum int) {
	for _, n := range calls {
		sum += n
	}
	return sum
}

// writesOf is how many of them wrote.
func writesOf(calls map[string]int) (sum int) {
	for what, n := range calls {
		if verb, _, _ := strings.Cut(what, " "); !slices.Contains([]string{"get", "list", "watch", "discover"}, verb) {
			sum += n
		}
	}
	return sum
}
