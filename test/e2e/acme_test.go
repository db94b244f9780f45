package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// certified deploys an app with tls: auto and gives the first certificate that its host has.
func certified(t *testing.T, in *installation, a *authority, host *app) *x509.Certificate {
	t.Helper()
	host.Lines = append(host.Lines, a.line())
	in.deploy(host).want(t, 0)
	return in.certificate(a, host.Host())
}

// certificate waits until a host has one.
func (in *installation) certificate(a *authority, host string) (c *x509.Certificate) {
	in.t.Helper()
	var err error
	if !within(45*time.Second, func() bool { c, err = in.shown(a, host); return err == nil }) {
		a.tell()
		in.t.Fatalf("no certificate of %s: %v", host, err)
	}
	return c
}

// visit asks for a page over HTTPS, by HTTP/2 or not.
func (in *installation) visit(a *authority, host, path string, h2 bool) (*http.Response, string) {
	in.t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	transport := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: a.signers},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, in.https)
		},
	}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("https://" + host + path)
	if err != nil {
		in.t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response, string(body)
}

// plain asks for a page over HTTP and follows nothing.
func (in *installation) plain(host, path string, header ...string) *http.Response {
	in.t.Helper()
	request, err := http.NewRequestWithContext(in.ctx(10*time.Second), http.MethodGet, "http://"+in.http+path, nil)
	if err != nil {
		in.t.Fatal(err)
	}
	request.Host, request.Close = host, true
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		in.t.Fatal(err)
	}
	response.Body.Close()
	return response
}

// The authority proves the name over HTTP. What it gave outlives the proxy and the server, and nobody asks again.
func TestACME(t *testing.T) {
	in := installTLS(t)
	ca := newAuthority(t, in.http, freeAddress(t), 24*time.Hour)
	ca.up()
	host := newApp(t, "auto")
	first := certified(t, in, ca, host)
	if n := ca.issued(); n != 1 {
		t.Errorf("the authority gave %d certificates, want 1", n)
	}
	for _, h2 := range []bool{false, true} {
		if r, _ := in.visit(ca, host.Host(), "/", h2); r.StatusCode != 200 || r.Header.Get("X-Spillway-Release") != "1" || (r.ProtoMajor == 2) != h2 {
			t.Errorf("HTTP/2 %v: status %d, %s, release %q", h2, r.StatusCode, r.Proto, r.Header.Get("X-Spillway-Release"))
		}
	}
	_, httpPort, _ := net.SplitHostPort(in.http)
	_, httpsPort, _ := net.SplitHostPort(in.https)
	for named, want := range map[string]string{
		host.Host() + ":" + httpPort: "https://" + host.Host() + ":" + httpsPort + "/a/b?c=%20d", // it reaches the ports themselves
		host.Host():                  "https://" + host.Host() + "/a/b?c=%20d",                   // 80 leads to ours, and so will 443
	} {
		if r := in.plain(named, "/a/b?c=%20d"); r.StatusCode != 308 || r.Header.Get("Location") != want {
			t.Errorf("HTTP with the host %s: %d to %q, want 308 to %q", named, r.StatusCode, r.Header.Get("Location"), want)
		}
	}
	if r := in.plain(host.Host(), "/", "X-Forwarded-Proto", "https"); r.StatusCode != 200 {
		t.Errorf("behind a terminator on this machine: %d, want 200", r.StatusCode)
	}
	if r := in.plain(host.Host(), "/.well-known/acme-challenge/mine"); r.StatusCode == 308 {
		t.Error("what an authority may look for was sent to HTTPS")
	}

	for range 3 {
		old := in.proxyPID()
		if err := syscall.Kill(in.serverPID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		await(t, 20*time.Second, "another proxy", func() bool { pid := in.proxyPID(); return pid != 0 && pid != old })
	}
	if now, err := in.shown(ca, host.Host()); err != nil || !now.Equal(first) {
		t.Errorf("after a new proxy, another certificate, or none: %v", err)
	}
	in.kill(syscall.SIGINT) // and all that it runs
	in.start()
	if now := in.certificate(ca, host.Host()); !now.Equal(first) {
		t.Error("after a new server, another certificate")
	}
	in.status("auto", 10*time.Second, "no problem", func(o spillway.Overview) bool { return len(o.Problems) == 0 })
	if n := ca.issued(); n != 1 {
		t.Errorf("the authority gave %d certificates in all, want 1", n)
	}
}

// A proxy that is replaced while it proves a name ends what it began, and the next one, who has its listeners, answers
// for it: the authority is asked once, and never shown anything wrong.
func TestACME_HandOver(t *testing.T) {
	in := installTLS(t)
	ca := newAuthority(t, in.http, in.https, 24*time.Hour)
	release := ca.hold()
	ca.up()
	host := newApp(t, "moved")
	host.Lines = append(host.Lines, ca.line())
	in.deploy(host).want(t, 0)
	await(t, 20*time.Second, "a challenge", func() bool { return ca.said("POST /chalZ/") > 0 })
	old := in.proxyPID()
	if err := syscall.Kill(in.serverPID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "another proxy", func() bool { pid := in.proxyPID(); return pid != 0 && pid != old })
	release()
	in.certificate(ca, host.Host())
	if issued, wrong := ca.issued(), ca.said("set INVALID"); issued != 1 || wrong != 0 {
		ca.tell()
		t.Errorf("the authority gave %d certificates and was shown something wrong %d times, want 1 and 0", issued, wrong)
	}
}

// Where port 80 leads elsewhere, the name is proven by TLS.
func TestACME_ByTLS(t *testing.T) {
	in := installTLS(t)
	ca := newAuthority(t, freeAddress(t), in.https, 24*time.Hour)
	ca.up()
	certified(t, in, ca, newApp(t, "alpn"))
	if r, _ := in.visit(ca, "alpn.localhost", "/", true); r.StatusCode != 200 {
		t.Errorf("status %d", r.StatusCode)
	}
}

// A certificate is replaced in the last third of its life, and nobody ever sees one that expired, or none.
func TestACME_Renews(t *testing.T) {
	in := installTLS(t)
	ca := newAuthority(t, in.http, in.https, 20*time.Second)
	ca.up()
	first := certified(t, in, ca, newApp(t, "renewed"))
	replaced := 0
	last := first
	await(t, 60*time.Second, "two renewals", func() bool {
		now, err := in.shown(ca, "renewed.localhost") // it checks the dates
		if err != nil {
			ca.tell()
			t.Fatalf("after %d renewals: %v", replaced, err)
		}
		if !now.Equal(last) {
			last = now
			replaced++
			if replaced == 1 { // who takes over renews too
				if err := syscall.Kill(in.serverPID(), syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
			}
		}
		return replaced >= 2
	})
	if n := ca.issued(); n > 4 {
		t.Errorf("the authority gave %d certificates for 2 renewals", n)
	}
}

// An authority that is down costs HTTPS, not HTTP: status says what and why, and when it is asked again. Then it
// is, and nobody has to do anything.
func TestACME_AuthorityIsDown(t *testing.T) {
	in := installTLS(t)
	ca := newAuthority(t, in.http, in.https, 24*time.Hour)
	ca.up()
	ca.down() // its root is known
	host := newApp(t, "waiting")
	host.Lines = append(host.Lines, ca.line())
	in.deploy(host).want(t, 0)
	in.status("waiting", 20*time.Second, "what is wrong with the certificate", func(o spillway.Overview) bool {
		return len(o.Problems) == 1 && strings.Contains(o.Problems[0], "certificate of waiting.localhost: there is none yet") &&
			strings.Contains(o.Problems[0], "connection refused") && strings.Contains(o.Problems[0], "the next try is at")
	})
	if status, _ := in.get(host.Host(), "/"); status != 200 {
		t.Errorf("HTTP: %d, want 200 and no redirect to what does not work", status)
	}
	if _, err := in.shown(ca, host.Host()); err == nil {
		t.Error("a certificate out of nothing")
	}
	if r := in.spillway("doctor").want(t, 1); !strings.Contains(r.stdout, "fail  certificate of waiting.localhost: there is none yet") {
		t.Errorf("doctor says\n%s", r.stdout)
	}
	ca.up()
	in.certificate(ca, host.Host())
	if r := in.spillway("doctor").want(t, 0); !strings.Contains(r.stdout, "ok    certificates: 1 certificate, all good") {
		t.Errorf("doctor says\n%s", r.stdout)
	}
	in.status("waiting", 10*time.Second, "no problem", func(o spillway.Overview) bool { return len(o.Problems) == 0 })
}

// A name that cannot be proven is named with what to do, and the authority is not asked again and again.
func TestACME_NameIsNotOurs(t *testing.T) {
	in := installTLS(t)
	ca := newAuthority(t, freeAddress(t), freeAddress(t), 24*time.Hour) // it looks where nobody is
	ca.up()
	host := newApp(t, "elsewhere")
	host.Lines = append(host.Lines, ca.line())
	in.deploy(host).want(t, 0)
	in.status("elsewhere", 30*time.Second, "what to do", func(o spillway.Overview) bool {
		return len(o.Problems) == 1 && strings.Contains(o.Problems[0], "refuses: ") && strings.Contains(o.Problems[0], "see that ports 80 and 443 of elsewhere.localhost lead to")
	})
	asked := ca.said("POST /order-plz")
	old := in.proxyPID()
	if err := syscall.Kill(in.serverPID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "another proxy", func() bool { pid := in.proxyPID(); return pid != 0 && pid != old })
	in.status("elsewhere", 10*time.Second, "the same from the next proxy", func(o spillway.Overview) bool {
		return len(o.Problems) == 1 && strings.Contains(o.Problems[0], "refuses: ")
	})
	if within(3*time.Second, func() bool { return ca.said("POST /order-plz") > asked }) || asked == 0 {
		t.Errorf("the authority was asked again at once, or never: %d orders", asked)
	}
}
