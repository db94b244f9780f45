//go:build kube

package e2e

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway/internal/e2etest"
)

// browser goes to the gateway whatever the host is, by HTTP or by HTTPS, and trusts the certificate of its listener.
func browser(t *testing.T) *http.Client {
	t.Helper()
	var secret core.Secret
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: "gateway", Name: "public"}, &secret); err != nil {
		t.Fatalf("the listener for HTTPS of the gateway has its certificate in the Secret public: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data["ca.crt"]) && !roots.AppendCertsFromPEM(secret.Data["tls.crt"]) {
		t.Fatal("the Secret public has no certificate")
	}
	host, _, err := net.SplitHostPort(gatewayAddress())
	if err != nil {
		t.Fatal(err)
	}
	return e2etest.Browser(t, gatewayAddress(), net.JoinHostPort(host, "443"), roots)
}

// open asks for a URL. Another answer than 200 is an error of the page. The gateway does not say which release answers,
// but the program does.
func open(browser *http.Client, url string) e2etest.Page {
	p := e2etest.Open(browser, url, nil)
	p.Release = p.Said.Release
	if p.Err == nil && p.Status != http.StatusOK {
		p.Err = fmt.Errorf("%d: %s", p.Status, strings.TrimSpace(p.Body))
	}
	return p
}

// watch lets eight users of each URL ask, eight times a second each, until the watch is ended. Fewer than 80 requests a
// second are not enough.
func watch(t *testing.T, browser *http.Client, urls ...string) *e2etest.Watchers {
	t.Helper()
	ask := func(url string) e2etest.Page { return open(browser, url) }
	return e2etest.Watch(t, e2etest.Habit{Users: 8, Every: time.Second / 8, Least: 80, Open: ask}, urls...)
}
