package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// errNoToken is the one refusal that a caller can mend by logging in: it becomes HTTP status 401.
var errNoToken = errors.New("no valid token")

// guard decides who may ask. The unix socket is guarded by the mode of its file; over TCP, on loopback
// too, a token is needed, and a browser must have been sent here by ourselves.
type guard struct {
	tokens tokens
	hosts  []string // lower case, without port
}

// newGuard admits callers that name the server localhost, the one address that it listens on, or one of names.
func newGuard(t tokens, listen string, names []string) guard {
	g := guard{tokens: t, hosts: []string{"localhost", "127.0.0.1", "::1"}}
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" && !net.ParseIP(host).IsUnspecified() {
		g.hosts = append(g.hosts, strings.ToLower(host))
	}
	for _, name := range names {
		g.hosts = append(g.hosts, strings.ToLower(name))
	}
	return g
}

// admit says who asks: "uid 0 (root)" or "token admin".
func (g guard) admit(r *http.Request) (by string, err error) {
	if peer, ok := r.Context().Value(peerKey{}).(string); ok {
		return peer, nil
	}
	// A page of another site can make a browser send requests here, and can give its own name our address.
	if !slices.Contains(g.hosts, hostname(r.Host)) {
		return "", fmt.Errorf("the name %q is not one of this server; use localhost, or allow the name in the server's settings: %w", r.Host, spillway.ErrDenied)
	}
	if origins := r.Header.Values("Origin"); len(origins) > 0 && !slices.Equal(origins, []string{"http://" + r.Host}) {
		return "", fmt.Errorf("requests from pages of %s are refused: %w", strings.Join(origins, ", "), spillway.ErrDenied)
	}
	scheme, presented, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if presented == "" || !strings.EqualFold(scheme, "Bearer") {
		return "", fmt.Errorf(`%w: this address needs "Authorization: Bearer TOKEN"; pass --token or SPILLWAY_TOKEN, the token is in the file %q of the server's state directory: %w`,
			errNoToken, TokenName, spillway.ErrDenied)
	}
	name, ok := g.tokens.owner(strings.TrimSpace(presented))
	if !ok {
		return "", fmt.Errorf("%w: the token is not one of this server; the file %q of the server's state directory has the right one: %w",
			errNoToken, TokenName, spillway.ErrDenied)
	}
	return "token " + name, nil
}

// hostname is a Host header without its port, in lower case: "[::1]:7300" is "::1".
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.ToLower(host)
}

type callerKey struct{}

func withCaller(ctx context.Context, by string) context.Context {
	return context.WithValue(ctx, callerKey{}, by)
}

// caller is who the guard admitted.
func caller(ctx context.Context) string {
	by, ok := ctx.Value(callerKey{}).(string)
	if !ok {
		panic("api: a request got past the guard")
	}
	return by
}
