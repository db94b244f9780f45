package proxy

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
)

// maxPEM bounds what is read of a certificate or key.
const maxPEM = 1 << 20

// certificate is a certificate in files. It outlives tables: what was read once is served until the files
// can be read again, whatever happens to them.
type certificate struct {
	files  spillway.TLS
	served atomic.Pointer[tls.Certificate] // nil = it could never be read

	mu         sync.Mutex
	cert, key  stamp // of the files as they were read last
	file, why  string
	unreported bool // file and why changed since they were logged
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
	file, why := "", ""
	switch {
	case certErr != nil:
		file, why = c.files.Cert, certErr.Error()
	case keyErr != nil:
		file, why = c.files.Key, keyErr.Error()
	case c.why == "" && cert == c.cert && key == c.key:
		return
	default:
		pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
		if err != nil {
			file, why = c.files.Cert, fmt.Sprintf("with the key %s: %v", c.files.Key, err)
			break
		}
		c.served.Store(&pair)
		c.cert, c.key, c.unreported = cert, key, true
	}
	c.unreported = c.unreported || why != c.why
	c.file, c.why = file, why
}

// stampOf looks at a file that is to be read. Nothing else than a file of ordinary size is: a pipe would
// keep its reader waiting.
func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		var of *os.PathError
		if errors.As(err, &of) {
			err = of.Err
		}
		return stamp{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEM {
		return stamp{}, errors.New("is no file with a certificate or key in PEM")
	}
	return stamp{info.ModTime(), info.Size()}, nil
}

// problem is the file that is no good, and why; "" when there is no problem.
func (c *certificate) problem(now time.Time) (file, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pair := c.served.Load()
	switch {
	case c.why != "" && pair == nil:
		return c.file, c.why + "; its hosts have no HTTPS"
	case c.why != "":
		return c.file, c.why + "; the certificate from before is served"
	case pair != nil && now.After(pair.Leaf.NotAfter):
		return c.files.Cert, "expired at " + pair.Leaf.NotAfter.UTC().Format(time.RFC3339)
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
	if cs.all == nil {
		cs.all = map[spillway.TLS]*certificate{}
	}
	if cs.all[files] == nil {
		cs.all[files] = &certificate{files: files}
	}
	return cs.all[files]
}

// readCertificates reads those of a table as far as they changed. A table is served with certificates
// that cannot be read, too: they must not stop a roll-back.
func (p *plane) readCertificates(t spillway.Table) (news bool) {
	for _, e := range t.Route.Edges {
		if e.TLS == nil {
			continue
		}
		c := p.certificates.of(*e.TLS)
		c.refresh()
		if !c.news() {
			continue
		}
		news = true
		if file, why := c.problem(time.Now()); why != "" {
			p.log.Error("certificate is no good", "app", t.App, "file", file, "reason", why)
		} else {
			p.log.Info("certificate", "app", t.App, "file", c.files.Cert, "until", c.served.Load().Leaf.NotAfter)
		}
	}
	return news
}

// tlsConfig serves each host with its certificate, as the routing has it at that moment.
func (p *plane) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := p.routing.Load().certificates[normalHost(hello.ServerName)]
			if c == nil {
				return nil, fmt.Errorf("no certificate for the host %s", cmp.Or(hello.ServerName, "that the client does not name"))
			}
			if pair := c.served.Load(); pair != nil {
				return pair, nil
			}
			file, why := c.problem(time.Now())
			return nil, fmt.Errorf("no certificate for the host %s: %s: %s", hello.ServerName, file, why)
		},
	}
}
