package proxy

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3"

	"github.com/spillway-dev/spillway"
)

// maxPEM bounds what is read of a certificate or key.
const maxPEM = 1 << 20

// source gives the certificate of a host.
type source interface {
	// pair is the certificate as it is served; nil = there is none yet.
	pair() *tls.Certificate
	// problem is what is no good, by the name of a file or of a host, and why; "" when there is no problem.
	problem(now time.Time) (what, why string)
}

// secureHost is how a host is served over TLS.
type secureHost struct {
	source
	redirect bool // from HTTP
}

// certificate is a certificate in files. It outlives tables: what was read once is served until the files
// can be read again, whatever happens to them.
type certificate struct {
	files  spillway.TLS
	served atomic.Pointer[tls.Certificate] // nil = it could never be read

	mu         sync.Mutex
	cert, key  stamp      // of the files as they were read last
	bad        *PairError // why they cannot be used; nil = they can
	unreported bool       // bad changed since it was logged
}

// stamp tells whether a file has changed.
type stamp struct {
	modified time.Time
	size     int64
}

// refresh reads the files if they changed since, or could not be read.
func (c *certificate) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	cert, certErr := stampOf(c.files.Cert)
	key, keyErr := stampOf(c.files.Key)
	if c.bad == nil && certErr == nil && keyErr == nil && cert == c.cert && key == c.key {
		return
	}
	pair, err := ReadPair(c.files)
	var bad *PairError
	if !errors.As(err, &bad) {
		c.served.Store(pair)
		c.cert, c.key, c.unreported = cert, key, true
	}
	c.unreported = c.unreported || (bad == nil) != (c.bad == nil) || bad != nil && *bad != *c.bad
	c.bad = bad
}

// stampOf looks at a file that is to be read. Nothing else than a file of ordinary size is: a pipe would
// keep its reader waiting.
func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, cause(err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEM {
		return stamp{}, errors.New("it is no file of the size that a certificate or key has")
	}
	return stamp{info.ModTime(), info.Size()}, nil
}

func (c *certificate) pair() *tls.Certificate { return c.served.Load() }

// problem is as in source.
func (c *certificate) problem(now time.Time) (file, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pair := c.served.Load()
	switch {
	case c.bad != nil && pair == nil:
		return c.bad.File, c.bad.Why + "; its hosts have no HTTPS; " + c.bad.Remedy
	case c.bad != nil:
		until := ", which is good until "
		if now.After(pair.Leaf.NotAfter) {
			until = ", which expired at "
		}
		return c.bad.File, c.bad.Why + "; the certificate from before is served" + until + pair.Leaf.NotAfter.UTC().Format(time.RFC3339) + "; " + c.bad.Remedy
	case pair != nil:
		if why, remedy := Stale(pair, now); why != "" {
			return c.files.Cert, why + "; " + remedy
		}
	}
	return "", ""
}

// news reports whether something is to be told since the last call.
func (c *certificate) news() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.unreported
	c.unreported = false
	return was
}

// certificates are those of all tables there ever were, by their files: they are few and small.
type certificates struct {
	mu  sync.Mutex
	all map[spillway.TLS]*certificate
}

// of gives the certificate in files, not read yet when it is new.
func (cs *certificates) of(files spillway.TLS) *certificate {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	files = spillway.TLS{Cert: files.Cert, Key: files.Key}
	if cs.all == nil {
		cs.all = map[spillway.TLS]*certificate{}
	}
	if cs.all[files] == nil {
		cs.all[files] = &certificate{files: files}
	}
	return cs.all[files]
}

// sourceOf gives the source of a host's certificate.
func (p *plane) sourceOf(terms spillway.TLS, host string) source {
	if terms.Auto {
		return p.keeper.of(terms, host)
	}
	return p.certificates.of(terms)
}

// secureHosts calls f once for each host of a table that is served over TLS, with the terms of its certificate:
// for the hosts of edges, and for those that only rules have. These have the terms of the first target that has
// any; where a rule has no target, because it sends elsewhere, those by which the app gets its certificates.
func secureHosts(t spillway.Table, f func(host string, terms spillway.TLS)) {
	seen, targets, auto := map[string]bool{}, map[string]*spillway.TLS{}, (*spillway.TLS)(nil)
	for _, e := range t.Route.Edges {
		for _, host := range e.Hosts {
			seen[normalHost(host)] = true
			if e.TLS != nil {
				f(host, *e.TLS)
			}
		}
		if e.Target != "" {
			targets[e.Target] = e.TLS
		}
		if auto == nil && e.TLS != nil && e.TLS.Auto {
			auto = e.TLS
		}
	}
	for _, r := range t.Route.Rules {
		terms := auto
		for i, to := range r.To {
			if terms = targets[to.Name()]; terms != nil || i == len(r.To)-1 {
				break
			}
		}
		for _, host := range r.Hosts {
			if name := normalHost(host); terms != nil && !seen[name] {
				seen[name] = true
				f(host, *terms)
			}
		}
	}
}

// sources calls f for every certificate of a table.
func (p *plane) sources(t spillway.Table, f func(source)) {
	files := map[source]bool{}
	secureHosts(t, func(host string, terms spillway.TLS) {
		if s := p.sourceOf(terms, host); !files[s] {
			files[s] = true
			f(s)
		}
	})
}

// readCertificates reads those of a table as far as they changed. A table is served with certificates
// that cannot be read, too: they must not stop a roll-back.
func (p *plane) readCertificates(t spillway.Table) (news bool) {
	p.sources(t, func(s source) {
		switch c := s.(type) {
		case *automatic:
			c.recall(p.base)
			news = c.news() || news
		case *certificate:
			c.refresh()
			if !c.news() {
				return
			}
			news = true
			if file, why := c.problem(time.Now()); why != "" {
				p.log.Error("certificate is no good", "app", t.App, "file", file, "reason", why)
			} else {
				p.log.Info("certificate", "app", t.App, "file", c.files.Cert, "until", c.served.Load().Leaf.NotAfter)
			}
		}
	})
	return news
}

// badCertificates says in dead which certificates of a table are no good, and why.
func (p *plane) badCertificates(t spillway.Table, dead map[string]string) {
	now := time.Now()
	secureHosts(t, func(host string, terms spillway.TLS) {
		s := p.sourceOf(terms, host)
		if a, ok := s.(*automatic); ok && p.outside.https == 0 {
			dead[a.title()] = "it is not asked for, because this proxy serves no HTTPS; start the server with --https :443"
		} else if what, why := s.problem(now); why != "" {
			dead[what] = why
		} else if pair := s.pair(); pair != nil && pair.Leaf.VerifyHostname(normalHost(host)) != nil {
			why := fmt.Sprintf("it is for %s and not for %s, where clients refuse it; put one in its place that is for all its hosts%s", strings.Join(pair.Leaf.DNSNames, ", "), host, again)
			dead[terms.Cert] = strings.TrimPrefix(dead[terms.Cert]+"; "+why, "; ")
		}
	})
}

// good reports whether clients take a certificate, as far as its time goes.
func good(pair *tls.Certificate, now time.Time) bool {
	return pair != nil && !now.Before(pair.Leaf.NotBefore) && now.Before(pair.Leaf.NotAfter)
}

// secure gives how a host is served over TLS: by its own name, or else by the wildcard that it is under.
func (t *routing) secure(name string) (secureHost, bool) {
	host := normalHost(name)
	s, ok := t.certificates[host]
	if _, parent, sub := strings.Cut(host, "."); !ok && sub {
		s, ok = t.certificates["*."+parent]
	}
	return s, ok
}

// tlsConfig serves each host with its certificate, as the routing has it at that moment. Versions, curves and
// ciphers are Go's, from TLS 1.2 on. Session tickets are good for one process: after a hand-over a client that
// comes back makes a whole handshake, once, so that no key to past traffic is ever on disk or on its way.
func (p *plane) tlsConfig() *tls.Config {
	validation := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol}, SessionTicketsDisabled: true,
		GetCertificate: p.provingCertificate,
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Equal(hello.SupportedProtos, validation.NextProtos) {
				return validation, nil
			}
			return nil, nil
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			s, ok := p.routing.Load().secure(hello.ServerName)
			if ok && s.pair() != nil {
				return s.pair(), nil
			}
			// Neither a certificate nor an error: the client is told that the name is not served (unrecognized_name).
			why := "no such host has one"
			if ok {
				_, why = s.problem(time.Now())
			}
			p.log.Debug("no certificate", "host", cmp.Or(hello.ServerName, "that the client does not name"), "reason", why)
			return nil, nil
		},
	}
}
