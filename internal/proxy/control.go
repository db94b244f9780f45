package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spillway-dev/spillway"
)

// socketName is the control socket in the directory. Its file mode is the permission.
const socketName = "proxy.sock"

// maxTable bounds what is read of a table.
const maxTable = 64 << 20

// maxQuery bounds what is read of a request to look at.
const maxQuery = 1 << 20

// Info describes a running proxy.
type Info struct {
	PID     int      `json:"pid"`
	Version string   `json:"version"`           // Config.Version
	HTTP    string   `json:"http"`              // where the public listener is bound: "[::]:8080"
	HTTPS   string   `json:"https,omitempty"`   // the same over TLS; "" = nowhere
	Private []string `json:"private"`           // addresses of the private listeners, sorted
	TCP     []string `json:"tcp,omitempty"`     // public addresses at which connections are passed through, sorted
	Behind  string   `json:"behind"`            // Config.Behind: whose word counts
	Leaving bool     `json:"leaving"`           // it drains and takes no table
	Seen    Seen     `json:"seen"`              // Config.Seen
	Metrics string   `json:"metrics,omitempty"` // where the listener of metrics is bound
	Files   uint64   `json:"files,omitempty"`   // how many it may have open; 0 = it does not say
	Most    int64    `json:"most,omitempty"`    // how many connections of clients each public address takes with that
}

// wireError is an error on the control socket.
type wireError struct {
	Kind string `json:"kind"` // the text of a sentinel of the root, or "internal"
	Text string `json:"text"`
}

// sentinels are the errors that keep their meaning on the way to the client, with their status.
var sentinels = []struct {
	err    error
	status int
}{
	{spillway.ErrNotFound, http.StatusNotFound},
	{spillway.ErrConflict, http.StatusConflict},
	{spillway.ErrInvalid, http.StatusBadRequest},
	{spillway.ErrStale, http.StatusPreconditionFailed},
	{spillway.ErrUnavailable, http.StatusServiceUnavailable},
}

// listenControl makes a control socket beside its path, and gives the function that puts it there: in
// place of a predecessor's, without a moment in between.
func listenControl(dir string) (l *net.UnixListener, publish func() error, err error) {
	path := filepath.Join(dir, socketName)
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(fresh) // of a process that had this number
	l, err = net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w (the path of a socket has room for 107 bytes; is %s too long?)", err, fresh)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(fresh, 0o600); err != nil {
		l.Close()
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	return l, func() error { return os.Rename(fresh, path) }, nil
}

// controlServer answers on the control socket.
func (p *plane) controlServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /table", func(w http.ResponseWriter, r *http.Request) {
		var t spillway.Table
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxTable)).Decode(&t); err != nil {
			sendError(w, fmt.Errorf("read table: %w: %w", err, spillway.ErrInvalid))
			return
		}
		sendResult(w, struct{}{}, p.push(t))
	})
	mux.HandleFunc("DELETE /table", func(w http.ResponseWriter, r *http.Request) {
		sendResult(w, struct{}{}, p.remove(spillway.Ref(r.FormValue("app"))))
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		if p.handedOver() {
			sendError(w, fmt.Errorf("this proxy was replaced; ask again: %w", spillway.ErrUnavailable))
			return
		}
		report, err := p.report(spillway.Ref(r.FormValue("app")))
		sendResult(w, report, err)
	})
	mux.HandleFunc("PUT /hold", p.serveHold)
	mux.HandleFunc("GET /routes", func(w http.ResponseWriter, r *http.Request) {
		sendResult(w, p.routing.Load().ways.lines(spillway.Ref(r.FormValue("app"))), nil)
	})
	mux.HandleFunc("POST /routes/test", func(w http.ResponseWriter, r *http.Request) {
		var q spillway.RouteQuery
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuery)).Decode(&q); err != nil {
			sendError(w, fmt.Errorf("read the request to look at: %w: %w", err, spillway.ErrInvalid))
			return
		}
		answer, err := p.explain(spillway.Ref(r.URL.Query().Get("app")), q)
		sendResult(w, answer, err)
	})
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) { sendResult(w, p.info(), nil) })
	mux.HandleFunc("GET /watch", p.serveWatch)
	mux.HandleFunc("POST /handover", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			sendError(w, err)
			return
		}
		if err := p.bequeath(conn.(*net.UnixConn)); err != nil {
			p.log.Warn("hand-over failed; this proxy goes on", "error", err)
		}
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		BaseContext:       func(net.Listener) context.Context { return p.base },
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
}

// serveWatch streams the names of apps that changed, one a line; all of them at first, because the
// caller may have missed something.
func (p *plane) serveWatch(w http.ResponseWriter, r *http.Request) {
	watcher := p.watch.join()
	defer p.watch.quit(watcher)
	p.mu.Lock()
	for ref := range p.apps {
		watcher.add(ref)
	}
	p.mu.Unlock()
	control, lines := http.NewResponseController(w), json.NewEncoder(w)
	if control.Flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-p.left:
			return
		case <-watcher.wake:
		}
		for _, app := range watcher.take() {
			if lines.Encode(app) != nil {
				return
			}
		}
		if control.Flush() != nil {
			return
		}
	}
}

func (p *plane) info() Info {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := Info{PID: os.Getpid(), Version: p.version, HTTP: p.public.tcp.Addr().String(), Leaving: p.closing(), Seen: p.seen.conf, Most: p.most}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		i.Files = limit.Cur
	}
	if p.secure != nil {
		i.HTTPS = p.secure.tcp.Addr().String()
	}
	if p.seen.metrics != nil {
		i.Metrics = p.seen.metrics.Addr().String()
	}
	for address := range p.listeners {
		i.Private = append(i.Private, address)
	}
	for name := range p.intakes {
		if address, public := strings.CutPrefix(name, tcpName); public {
			i.TCP = append(i.TCP, address)
		} else {
			i.Private = append(i.Private, name)
		}
	}
	i.Behind = Config{Trust: p.trust.listed, ProxyProtocol: p.headers}.Behind()
	slices.Sort(i.TCP)
	slices.Sort(i.Private)
	return i
}

func sendResult(w http.ResponseWriter, v any, err error) {
	if err != nil {
		sendError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away
}

func sendError(w http.ResponseWriter, err error) {
	e, status := wireError{"internal", err.Error()}, http.StatusInternalServerError
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			e.Kind, status = s.err.Error(), s.status
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(e)
}
