package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// writePair puts a certificate for names into the files.
func writePair(t *testing.T, files spillway.TLS, serial int64, names ...string) {
	t.Helper()
	certificate, key := testAuthority.issue(t, serial, names...)
	write(t, files, certificate, key)
}

func write(t *testing.T, files spillway.TLS, certificate, key []byte) {
	t.Helper()
	for path, text := range map[string][]byte{files.Key: key, files.Cert: certificate} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func pairIn(dir, name string) spillway.TLS {
	return spillway.TLS{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}
}

// secured is a table whose host is served over HTTPS too.
func secured(table spillway.Table, files spillway.TLS) spillway.Table {
	table.Route.Edges[0].TLS = &files
	return table
}

// tlsClient knows the test's authority and reaches the proxy under any name.
func (r *running) tlsClient(http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	address := strings.TrimPrefix(r.tls, "https://")
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: testAuthority.clientConfig("shop.test"), Protocols: protocols, DisableCompression: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	r.t.Cleanup(c.CloseIdleConnections)
	return c
}

// serial is the number of the certificate that the proxy shows for a host.
func (r *running) serial(host string) (int64, error) {
	conn, err := tls.Dial("tcp", strings.TrimPrefix(r.tls, "https://"), testAuthority.clientConfig(host))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestHTTPS_ServesHostsWithTheirCertificates(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	files := pairIn(dir, "shop")
	writePair(t, files, 7, "shop.test")
	table := secured(divided(1, spillway.Percent(50), "", replica(t, func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprintf(w, "%s %s", req.Header.Get("X-Forwarded-Proto"), req.Host)
	})), files)
	table.Route.Edges[0].Backends[0].Weight, table.Route.Edges[0].Backends[1].Weight = 1, spillway.Whole-1
	table.Route.Trial, table.Endpoints = nil, table.Endpoints[1:]
	r.push(table)
	for _, http2 := range []bool{false, true} {
		c := r.tlsClient(http2)
		req, err := http.NewRequest("POST", "https://shop.test/", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "https shop.test" || resp.ProtoMajor != map[bool]int{false: 1, true: 2}[http2] {
			t.Errorf("%s: %q %v", resp.Proto, body, err)
		}
		if cookie := resp.Header.Get("Set-Cookie"); !strings.Contains(cookie, "; Secure") {
			t.Errorf("%s: cookie %q", resp.Proto, cookie)
		}
	}
	if a := r.get("/"); strings.Contains(a.header.Get("Set-Cookie"), "Secure") || a.body != "http shop.test" {
		t.Errorf("without TLS: %+v", a)
	}
	if n, err := r.serial("SHOP.test"); n != 7 || err != nil {
		t.Errorf("certificate %d %v", n, err)
	}
	for _, host := range []string{"other.test", "127.0.0.1"} {
		if _, err := r.serial(host); err == nil {
			t.Errorf("a certificate for %s", host)
		}
	}
	old := &tls.Config{InsecureSkipVerify: true, ServerName: "shop.test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if _, err := tls.Dial("tcp", strings.TrimPrefix(r.tls, "https://"), old); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

func TestHTTPS_ReadsCertificatesAgain(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	files := pairIn(dir, "shop")
	table := secured(alone(1, replica(t, text("shop"))), files)
	r.push(table) // a certificate that is not there holds nothing back
	if a := r.get("/"); a.body != "shop" {
		t.Errorf("%+v", a)
	}
	if _, err := r.serial("shop.test"); err == nil {
		t.Error("HTTPS without a certificate")
	}
	if why := r.report().Dead[files.Cert]; why != "cannot be read: no such file or directory; its hosts have no HTTPS; put it there, or mend cert in tls; both files are read again within a second" {
		t.Errorf("dead: %q", why)
	}
	writePair(t, files, 1, "shop.test")
	eventually(t, "the first certificate", func() bool { n, _ := r.serial("shop.test"); return n == 1 })
	if dead := r.report().Dead; len(dead) != 0 {
		t.Errorf("dead: %v", dead)
	}
	if err := os.WriteFile(files.Key, []byte("half a k"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the damage is told", func() bool {
		return strings.Contains(r.report().Dead[files.Key], "the certificate from before is served, which is good until 2")
	})
	if n, err := r.serial("shop.test"); n != 1 || err != nil {
		t.Errorf("with a damaged file: %d %v", n, err)
	}
	writePair(t, files, 2, "shop.test")
	table.Revision = 2
	r.push(table) // a push looks at once
	if n, err := r.serial("shop.test"); n != 2 || err != nil {
		t.Errorf("renewed: %d %v", n, err)
	}
	if err := os.Rename(files.Key, files.Key+".away"); err != nil {
		t.Fatal(err)
	}
	table.Revision = 3
	r.push(table)
	if why := r.report().Dead[files.Key]; !strings.HasPrefix(why, "cannot be read: no such file") {
		t.Errorf("dead: %v", r.report().Dead)
	}
	if err := os.Rename(files.Key+".away", files.Key); err != nil {
		t.Fatal(err)
	}
	table.Revision = 4
	r.push(table) // the same file as before
	if dead := r.report().Dead; len(dead) != 0 {
		t.Errorf("dead: %v", dead)
	}
	if err := os.Remove(files.Cert); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(files.Cert, 0o700); err != nil {
		t.Fatal(err)
	}
	table.Revision = 5
	r.push(table)
	if why := r.report().Dead[files.Cert]; !strings.Contains(why, "is no file") {
		t.Errorf("dead: %q", why)
	}
}

func TestHTTPS_TellsOfAnExpiredCertificate(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	files := pairIn(dir, "shop")
	certificate, key := testAuthority.issueUntil(t, time.Now().Add(-time.Minute), 1, "shop.test")
	write(t, files, certificate, key)
	r.push(secured(alone(1, replica(t, text("shop"))), files))
	if why := r.report().Dead[files.Cert]; !strings.HasPrefix(why, "expired at 2") {
		t.Errorf("dead: %v", r.report().Dead)
	}
	if _, err := r.serial("shop.test"); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("the client sees %v", err)
	}
}

// TestHTTPS_SwitchesWithHTTP: who has seen table n over one listener never sees an older one over another.
func TestHTTPS_SwitchesWithHTTP(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	files := pairIn(dir, "shop")
	writePair(t, files, 1, "shop.test")
	table := secured(alone(1, replica(t, text("shop"))), files)
	r.push(table)
	var newest, asked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for _, client := range []*http.Client{newClient(), r.tlsClient(false), r.tlsClient(true)} {
		url := "https://shop.test"
		if client.Transport.(*http.Transport).Protocols == nil {
			url = r.url
		}
		clients.Go(func() { // ends with ctx, the test waits
			for ctx.Err() == nil {
				least := newest.Load()
				a, err := do(client, url, "GET", "/", nil)
				got, _ := strconv.ParseInt(a.release, 10, 64)
				if err != nil || got < least {
					t.Errorf("%s: release %s %v, after %d had been seen", url, a.release, err, least)
					return
				}
				for seen := newest.Load(); got > seen && !newest.CompareAndSwap(seen, got); seen = newest.Load() {
				}
				asked.Add(1)
			}
		})
	}
	for n := 2; n <= 150; n++ {
		table.Revision = int64(n)
		table.Route.Edges = []spillway.Edge{table.Route.Edges[0]}
		table.Route.Edges[0].Backends = []spillway.Backend{{Group: www1, Release: n, Weight: spillway.Whole}}
		r.push(table)
		newest.Store(int64(n))
	}
	cancel()
	clients.Wait()
	if asked.Load() < 10 {
		t.Errorf("only %d requests", asked.Load())
	}
}

func TestHTTPS_IsHandedOver(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	old := start(t, dir, false)
	files := pairIn(dir, "shop")
	writePair(t, files, 1, "shop.test")
	entered, leave := make(chan struct{}), make(chan struct{})
	old.push(secured(divided(1, 0, replica(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			close(entered)
			<-leave
		}
		fmt.Fprintf(w, "%s %s", req.Header.Get("X-Forwarded-Proto"), req.Method)
	}), "127.0.0.1:1"), files))
	kept := []*http.Client{old.tlsClient(false), old.tlsClient(true)}
	for _, c := range kept {
		if a, err := do(c, "https://shop.test", "GET", "/", nil); err != nil || a.body != "https GET" {
			t.Fatalf("%+v %v", a, err)
		}
	}
	slow := make(chan answer, 1)
	var clients sync.WaitGroup
	clients.Go(func() { // ends with its answer, the test waits
		a, err := do(old.tlsClient(true), "https://shop.test", "GET", "/slow", nil)
		if err != nil {
			t.Error(err)
		}
		slow <- a
	})
	<-entered
	r := start(t, dir, true)
	if r.tls != old.tls {
		t.Errorf("the heir listens on %s instead of %s", r.tls, old.tls)
	}
	for _, c := range append(kept, r.tlsClient(false), r.tlsClient(true)) {
		for _, method := range []string{"POST", "GET"} { // those that are kept are relayed
			if a, err := do(c, "https://shop.test", method, "/", strings.NewReader("x")); err != nil || a.body != "https "+method {
				t.Errorf("after the hand-over: %+v %v", a, err)
			}
		}
	}
	close(leave)
	clients.Wait()
	if a := <-slow; a.body != "https GET" {
		t.Errorf("open request: %+v", a)
	}
}
