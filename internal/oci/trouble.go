package oci

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spillway-dev/spillway"
)

var (
	// errPlain is a request without TLS to a registry for which nobody allowed it. The library would make one to each
	// private address that does not answer to TLS, and whoever is between could read the password.
	errPlain = errors.New("without TLS")
	// errSilent is a registry that took too long.
	errSilent = errors.New("no answer in time")
)

// guarded lets no request out without TLS but to where it may go.
type guarded struct {
	next  http.RoundTripper
	plain func(host string) bool
}

// RoundTrip makes a request, or refuses it.
func (g guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !g.plain(req.URL.Host) {
		return nil, fmt.Errorf("request to %s: %w", req.URL.Host, errPlain)
	}
	return g.next.RoundTrip(req)
}

// mayBePlain reports whether a registry may be asked without TLS.
func (r *Registry) mayBePlain(host string) bool {
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	if ip := net.ParseIP(strings.Trim(bare, "[]")); ip != nil && ip.IsLoopback() || bare == "localhost" {
		return true
	}
	return slices.Contains(r.insecure, host)
}

// cause puts the reason of a context into the error of what it ended.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return err
}

// A trouble is an error of a registry in words: what was tried, what was seen, what to do next.
type trouble struct {
	text  string
	kind  error // one of the root's
	cause error
}

func (t trouble) Error() string   { return t.text }
func (t trouble) Unwrap() []error { return []error{t.kind, t.cause} }

// silence is what is said of a registry that does not answer.
const silence = "the registry %s did not answer in time; try again, and if it stays so, look whether it is overloaded or a firewall is between"

// explain says why a registry did not do what was asked: "read the image postgres:17".
func (r *Registry) explain(err error, work string, where name.Repository) error {
	host := where.RegistryStr()
	say := func(kind error, format string, args ...any) error {
		return trouble{fmt.Sprintf("cannot %s: ", work) + fmt.Sprintf(format, args...), kind, err}
	}
	var answer *transport.Error
	var dns *net.DNSError
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", work, err)
	case errors.Is(err, errSilent) || errors.Is(err, context.DeadlineExceeded):
		return say(spillway.ErrUnavailable, silence, host)
	case untrusted(err):
		return say(spillway.ErrUnavailable, "the certificate of the registry %s is not trusted (%v); add its authority to those of the server's machine and of the nodes", host, innermost(err))
	case errors.As(err, &answer):
		return r.refused(answer, say, where)
	case errors.As(err, &dns): // these before a want of TLS: after them the library asks private addresses without it
		if dns.IsNotFound {
			return say(spillway.ErrUnavailable, "there is no host %s; check the name of the registry, or the DNS of the server's machine (%v)", host, dns)
		}
		return say(spillway.ErrUnavailable, "the host %s cannot be looked up: the DNS of the server's machine does not answer (%v)", host, dns)
	case errors.Is(err, syscall.ECONNREFUSED):
		return say(spillway.ErrUnavailable, "nothing listens at the registry %s (connection refused); start it, or check its name and port", host)
	case errors.As(err, &network) && network.Timeout():
		return say(spillway.ErrUnavailable, silence, host)
	case errors.Is(err, errPlain) || errors.Is(err, http.ErrSchemeMismatch) || strings.Contains(err.Error(), http.ErrSchemeMismatch.Error()):
		return say(spillway.ErrUnavailable, "the registry %s does not speak TLS, and requests without it are for registries that are allowed to; "+
			"give it a certificate, or allow it: --insecure-registry %s", host, host)
	}
	return say(spillway.ErrUnavailable, "%v", err)
}

// refused explains an answer of a registry that is not what was asked for.
func (r *Registry) refused(answer *transport.Error, say func(error, string, ...any) error, where name.Repository) error {
	host := where.RegistryStr()
	login := host
	if host == name.DefaultRegistry {
		login = "docker.io"
	}
	said := ""
	for _, d := range answer.Errors {
		said += fmt.Sprintf("; it says: %s", d)
	}
	switch code := answer.StatusCode; {
	case code == http.StatusNotFound:
		return say(spillway.ErrNotFound, "the registry %s has no such image; check the name and the tag%s", host, said)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return say(spillway.ErrDenied, "the registry %s does not let us (%d %s), or there is no such image, which some registries do not tell apart; "+
			"log in as the user of the server: docker login %s, which writes ~/.docker/config.json%s", host, code, http.StatusText(code), login, said)
	case code == http.StatusTooManyRequests:
		return say(spillway.ErrUnavailable, "the registry %s had too many requests from here; wait, or log in: docker login %s%s", host, login, said)
	case code == http.StatusRequestEntityTooLarge:
		return say(spillway.ErrInvalid, "a layer is larger than the registry %s, or a proxy before it, takes%s", host, said)
	case code >= 500:
		return say(spillway.ErrUnavailable, "the registry %s is in trouble (%d %s); try again%s", host, code, http.StatusText(code), said)
	}
	return say(spillway.ErrUnavailable, "the registry %s answered %d %s%s", host, answer.StatusCode, http.StatusText(answer.StatusCode), said)
}

// untrusted reports whether it is the certificate of the other side that is not taken.
func untrusted(err error) bool {
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &verify) || errors.As(err, &authority) || errors.As(err, &host)
}

// innermost is what an error of a certificate says without who asked whom.
func innermost(err error) error {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return verify.Err
	}
	return err
}
