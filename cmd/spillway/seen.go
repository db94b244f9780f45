package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy"
	"github.com/spillway-dev/spillway/internal/proxy/trace"
)

// seenOptions are the flags about what is to be seen of requests. The proxy has them from the server, and that
// from up.
type seenOptions struct {
	accessLog, metrics, otlp string // "" = none
	logSample, traceSample   string // shares: "1%"
}

func (o *seenOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.accessLog, "access-log", "", "`FILE` that gets a line of JSON for each request; - is the proxy's log (default none)")
	flags.StringVar(&o.logSample, "access-log-sample", "100%", "`SHARE` of the requests that are logged; failures always are")
	flags.StringVar(&o.metrics, "metrics", "", "`ADDR` at which Prometheus finds /metrics, such as :7301, which is on 127.0.0.1 (default none)")
	flags.StringVar(&o.otlp, "otlp", "", "`URL` of a collector that gets a span for each request, such as http://127.0.0.1:4318 (default none)")
	flags.StringVar(&o.traceSample, "otlp-sample", "100%", "`SHARE` of the traces begun here that are recorded; who begins one elsewhere decides there")
}

// asked reports whether any of them is on.
func (o seenOptions) asked() bool { return o.accessLog != "" || o.metrics != "" || o.otlp != "" }

// seen is what the flags ask for, with the file by its whole path; or which of them is wrong.
func (o seenOptions) seen() (s proxy.Seen, err error) {
	if s.AccessLog = o.accessLog; o.accessLog != "" {
		if s.LogSample, err = spillway.ParseShare(o.logSample); err != nil {
			return s, usage("--access-log-sample %s is no share; write 1%%", o.logSample)
		}
		if o.accessLog != "-" {
			if s.AccessLog, err = filepath.Abs(o.accessLog); err != nil {
				return s, err
			}
		}
	}
	if s.OTLP = o.otlp; o.otlp != "" {
		if _, err := trace.Collector(o.otlp); err != nil {
			return s, usage("--otlp %v", err)
		}
		if s.TraceSample, err = spillway.ParseShare(o.traceSample); err != nil {
			return s, usage("--otlp-sample %s is no share; write 10%%", o.traceSample)
		}
	}
	if o.metrics == "" {
		return s, nil
	}
	host, port, err := net.SplitHostPort(o.metrics)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return s, usage("--metrics %s is no address to listen on; write :7301 or 127.0.0.1:7301", o.metrics)
	}
	if host == "" { // everybody may ask there, so who wants the whole network to has to say so
		host = "127.0.0.1"
	}
	s.Metrics = net.JoinHostPort(host, port)
	return s, nil
}

// seenArgs are the flags again that ask for s.
func seenArgs(s proxy.Seen) (args []string) {
	add := func(name, value string) { args = append(args, "--"+name, value) }
	if s.AccessLog != "" {
		add("access-log", s.AccessLog)
		add("access-log-sample", s.LogSample.String())
	}
	if s.Metrics != "" {
		add("metrics", s.Metrics)
	}
	if s.OTLP != "" {
		add("otlp", s.OTLP)
		add("otlp-sample", s.TraceSample.String())
	}
	return args
}

// checkSeen finds out what would keep a proxy from starting with s, while the one that runs has what is in has.
func checkSeen(s, has proxy.Seen) error {
	if s.AccessLog != "" && s.AccessLog != "-" {
		f, err := os.OpenFile(s.AccessLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("access log: %w; name a file in a directory that is there and may be written: %w", err, spillway.ErrInvalid)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("access log: %w", err)
		}
	}
	if s.Metrics == "" || s.Metrics == has.Metrics {
		return nil
	}
	l, err := net.Listen("tcp", s.Metrics)
	if err != nil {
		return fmt.Errorf("metrics cannot be served on %s: %w; choose another address: --metrics 127.0.0.1:7302: %w", s.Metrics, err, spillway.ErrConflict)
	}
	return l.Close()
}

// seenText says where requests are seen: ", metrics at http://127.0.0.1:7301/metrics, access log /var/log/shop".
func seenText(info proxy.Info) string {
	var b strings.Builder
	if info.Metrics != "" {
		b.WriteString(", metrics at http://" + info.Metrics + "/metrics")
	}
	b.WriteString(after(", access log ", info.Seen.AccessLog))
	b.WriteString(after(", spans to ", info.Seen.OTLP))
	return b.String()
}
