package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// authority is a certificate authority on loopback that speaks ACME: Pebble, which Let's Encrypt tests clients with.
// It checks names over the network like a real one, by its own DNS, in which every name is 127.0.0.1.
type authority struct {
	t       *testing.T
	address string
	handler http.Handler
	server  *httptest.Server // nil = it is down
	root    string           // file with the certificate of its own server
	signers *x509.CertPool   // of the certificates that it gives

	answers chan struct{} // answers about names go out when it is closed; see hold

	mu  sync.Mutex
	log bytes.Buffer
}

// newAuthority makes one that is down. It looks at names on the ports, and its certificates live for life.
func newAuthority(t *testing.T, http, https string, life time.Duration) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")      // it would wait up to 5 s before each look
	t.Setenv("PEBBLE_AUTHZREUSE", "0")      // each order proves its name
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "5") // as usual: clients must be able to bear it
	a := &authority{t: t, address: freeAddress(t), root: filepath.Join(t.TempDir(), "root.pem"), signers: x509.NewCertPool(), answers: make(chan struct{})}
	close(a.answers)
	logger := log.New(a, "", 0)
	store := db.NewMemoryStore()
	signer := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: uint64(life / time.Second)}})
	looks := va.New(logger, port(t, http), port(t, https), false, a.names(), store)
	front := wfe.New(logger, store, looks, signer, []string{"pebble.test"}, false, false, 1, 1)
	a.handler = front.Handler()
	a.signers.AppendCertsFromPEM(signer.GetRootCert(0).PEM())
	t.Cleanup(a.down)
	return a
}

func port(t *testing.T, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(text)
	return n
}

// names starts the DNS and gives its address.
func (a *authority) names() string {
	a.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // its resolver asks by TCP
	if err != nil {
		a.t.Fatal(err)
	}
	server := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		<-a.answers
		answer := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			answer.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1),
			}}
		}
		w.WriteMsg(answer)
	})}
	gone := make(chan struct{})
	// Owned by the test, which shuts the server down when it ends and waits.
	go func() { server.ActivateAndServe(); close(gone) }()
	a.t.Cleanup(func() { server.Shutdown(); <-gone })
	return l.Addr().String()
}

// hold has it wait before it looks for names, until the function is called.
func (a *authority) hold() (release func()) {
	answers := make(chan struct{})
	a.answers = answers
	release = sync.OnceFunc(func() { close(answers) })
	a.t.Cleanup(release)
	return release
}

// up makes it answer, at the same address each time.
func (a *authority) up() {
	a.t.Helper()
	l, err := net.Listen("tcp", a.address)
	if err != nil {
		a.t.Fatal(err)
	}
	a.server = httptest.NewUnstartedServer(a.handler)
	a.server.Listener.Close()
	a.server.Listener = l
	a.server.StartTLS()
	writeFile(a.t, a.root, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})))
}

func (a *authority) down() {
	if a.server != nil {
		a.server.CloseClientConnections()
		a.server.Close()
	}
	a.server = nil
}

// line is how an app file names it.
func (a *authority) line() string {
	return fmt.Sprintf("tls: {acme: {email: ops@example.com, ca: %q, root: %q}}", "https://"+a.address+wfe.DirectoryPath, a.root)
}

// Write takes the log of Pebble.
func (a *authority) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(p)
}

// said counts the lines of its log that have all the words.
func (a *authority) said(words ...string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for line := range strings.Lines(a.log.String()) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			n++
		}
	}
	return n
}

// issued is how many certificates it gave.
func (a *authority) issued() int { return a.said("Issued certificate serial") }

// tell logs the end of its log.
func (a *authority) tell() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.t.Logf("---- the authority's log\n%s", lastLines(a.log.String(), 60))
}

// shown is the certificate that the proxy shows for a host, which the authority must have signed.
func (in *installation) shown(a *authority, host string) (*x509.Certificate, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{RootCAs: a.signers, ServerName: host}}
	conn, err := dialer.Dial("tcp", in.https)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}
