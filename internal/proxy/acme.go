package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/spillway-dev/spillway"
)

const (
	// acmeDir holds accounts and certificates, in the proxy's directory. Its form is that of certmagic.
	acmeDir = "acme"
	// challengePath is where an authority looks for the answer to its HTTP challenge (RFC 8555, section 8.3).
	challengePath = "/.well-known/acme-challenge/"
	// orderTime bounds one order, from the account to the certificate.
	orderTime = 3 * time.Minute
)

// acmeAuthority is a certificate authority, with our account there.
type acmeAuthority struct {
	terms   spillway.TLS // Email, CA and Root count
	outside *outside
	storage *certmagic.FileStorage

	mu     sync.Mutex
	root   stamp // of the file, as config knows it
	config *certmagic.Config
}

// url is that of the directory.
func (a *acmeAuthority) url() string {
	if a.terms.CA == "" {
		return certmagic.LetsEncryptProductionCA
	}
	return a.terms.CA
}

// name is short: the host of the URL.
func (a *acmeAuthority) name() string {
	_, rest, _ := strings.Cut(a.url(), "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// key is the name of the authority in the storage.
func (a *acmeAuthority) key() string {
	issuer := certmagic.ACMEIssuer{CA: a.url()}
	return issuer.IssuerKey()
}

// stored is the certificate of a host that was obtained last; nil when none was. The error is a storedError.
func (a *acmeAuthority) stored(ctx context.Context, host string) (*tls.Certificate, error) {
	dir := a.storage.Filename(certmagic.StorageKeys.CertsSitePrefix(a.key(), host))
	var parts [2][]byte
	for i, name := range []string{certmagic.StorageKeys.SiteCert(a.key(), host), certmagic.StorageKeys.SitePrivateKey(a.key(), host)} {
		text, err := a.storage.Load(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, storedError{fmt.Errorf("%w; let the user %d, who runs the server, read and write all in %s", err, os.Geteuid(), dir)}
		}
		parts[i] = text
	}
	pair, err := tls.X509KeyPair(parts[0], parts[1])
	if err != nil {
		return nil, storedError{fmt.Errorf("%s: %w; remove that directory, and another is asked for", dir, err)}
	}
	return &pair, nil
}

// storedError: what is stored of an authority cannot be read. Its text ends with what to do.
type storedError struct{ error }

func (e storedError) Unwrap() error { return e.error }

// order asks for a certificate of the host: for the first, or for one after another. Only one process at a time
// does, by a lock in the storage, and who waited for it finds what the other one got.
func (a *acmeAuthority) order(ctx context.Context, cache *certmagic.Cache, host string, first bool) error {
	config, err := a.configured(cache)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	if first {
		return config.ObtainCertSync(ctx, host)
	}
	return config.RenewCertSync(ctx, host, false)
}

// configured gives the configuration for orders. It is made anew when the file with the roots changed.
func (a *acmeAuthority) configured(cache *certmagic.Cache) (*certmagic.Config, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var roots *x509.CertPool
	var now stamp
	if a.terms.Root != "" {
		var err error
		if now, err = stampOf(a.terms.Root); err != nil {
			return nil, rootError{fmt.Errorf("%s: %w", a.terms.Root, err)}
		}
		if a.config != nil && now == a.root {
			return a.config, nil
		}
		text, err := os.ReadFile(a.terms.Root)
		if err != nil {
			return nil, rootError{err}
		}
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(text) {
			return nil, rootError{fmt.Errorf("%s has no certificate in PEM", a.terms.Root)}
		}
	} else if a.config != nil {
		return a.config, nil
	}
	// ARI is left out: with it the library would renew by a clock of its own.
	config := certmagic.New(cache, certmagic.Config{Storage: a.storage, Logger: zap.NewNop(), DisableARI: true, RenewalWindowRatio: 1 / renewLast})
	issuer := certmagic.NewACMEIssuer(config, certmagic.ACMEIssuer{
		CA: a.url(), Email: a.terms.Email, Agreed: true, TrustedRoots: roots, Logger: zap.NewNop(),
		// Where it would listen if we did not.
		ListenHost: a.outside.host(), AltHTTPPort: a.outside.http, AltTLSALPNPort: a.outside.https,
	})
	config.Issuers = []certmagic.Issuer{silentIssuer{issuer, a.terms.Email}}
	a.config, a.root = config, now
	return config, nil
}

// rootError: what should make the authority's own server known cannot be used.
type rootError struct{ error }

func (e rootError) Unwrap() error { return e.error }

// silentIssuer never asks anybody for an address, and takes none that another app gave.
type silentIssuer struct {
	certmagic.Issuer
	email string
}

// PreCheck is called by certmagic before an order.
func (i silentIssuer) PreCheck(ctx context.Context, names []string, _ bool) error {
	if i.email == "" {
		return nil
	}
	return i.Issuer.(certmagic.PreChecker).PreCheck(ctx, names, false)
}

// proof is what a host has to show at the moment: this process asked the authority, or another one on the same
// directory did, which is being replaced and whose listeners we have.
func (p *plane) proof(host string) (acme.Challenge, bool) {
	host = normalHost(host)
	if c, ok := certmagic.GetACMEChallenge(host); ok {
		return c.Challenge, true
	}
	s, ok := p.routing.Load().certificates[host]
	a, auto := s.source.(*automatic)
	if !ok || !auto {
		return acme.Challenge{}, false
	}
	var c acme.Challenge
	at := path.Join("acme", certmagic.StorageKeys.Safe(a.authority.key()), "challenge_tokens", certmagic.StorageKeys.Safe(host)+".json")
	text, err := a.authority.storage.Load(p.base, at)
	if err != nil || json.Unmarshal(text, &c) != nil {
		return acme.Challenge{}, false
	}
	return c, true
}

// acmeAnswer is the answer to the HTTP challenge that an authority looks for under a host and path.
func (p *plane) acmeAnswer(host, path string) (body string, ok bool) {
	if !strings.HasPrefix(path, challengePath) {
		return "", false
	}
	c, ok := p.proof(host)
	if !ok || c.Type != acme.ChallengeTypeHTTP01 || c.HTTP01ResourcePath() != path {
		return "", false
	}
	return c.KeyAuthorization, true
}

// provingCertificate is the answer to the TLS challenge (RFC 8737).
func (p *plane) provingCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, ok := p.proof(hello.ServerName)
	if !ok || c.Type != acme.ChallengeTypeTLSALPN01 {
		return nil, fmt.Errorf("no authority was asked for a certificate of %s", hello.ServerName)
	}
	return acmez.TLSALPN01ChallengeCert(c)
}
