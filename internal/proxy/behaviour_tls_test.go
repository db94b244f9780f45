package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// secured has shop.test served over TLS too, and the front dial it so, for HTTP/1.1.
func (f *front) secured(table spillway.Table) {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.test"}, DNSNames: []string{"shop.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.t.Fatal(err)
	}
	dir := f.t.TempDir()
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	for name, text := range map[string][]byte{"cert.pem": chain, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	table.Route.Edges[0].TLS = &spillway.TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	f.push(table)
	info, err := f.Info(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(chain)
	f.addr, f.tls = info.HTTPS, &tls.Config{RootCAs: roots, ServerName: "shop.test", NextProtos: []string{"http/1.1"}}
}

// TestBehaviour_IsTheSameOverTLS: HTTP/1.1 is read as strictly, and passed on as exactly.
func TestBehaviour_IsTheSameOverTLS(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := serve(t, engine)
		f.secured(shopAt(2, backend.addr))
		for _, u := range slices.Concat(targets(), fields(), bodies()) {
			// A host with a port that is not the connection's is left alone here too, and so is the plain scheme.
			if !strings.Contains(u.name, "scheme") {
				t.Run(u.name, func(t *testing.T) { u.check(t, f, backend) })
			}
		}
		for _, m := range everythingMalformed() {
			t.Run(m.name, func(t *testing.T) { m.check(t, f, backend, m.send+next) })
		}
		t.Run("conforms", func(t *testing.T) {
			keepsOpen(t, f)
			asksForBody(t, f)
		})
		_, requests := backend.take()
		for _, a := range requests {
			if got := a.header["x-forwarded-proto"]; !slices.Equal(got, []string{"https"}) {
				t.Errorf("X-Forwarded-Proto: %q", got)
			}
		}
	})
}
