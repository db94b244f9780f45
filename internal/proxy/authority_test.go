package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority issues certificates. The proxies of the tests trust testAuthority, because TestMain has
// SSL_CERT_FILE name its certificate.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// testAuthority is set by TestMain, before the first test.
var testAuthority *authority

// trustedBy makes the authority, and makes it and nobody else trusted by this process and those that it starts.
func trustedBy(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	testAuthority = &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	path := filepath.Join(dir, "authority.pem")
	if err := os.WriteFile(path, testAuthority.pem, 0o600); err != nil {
		return err
	}
	if err := os.Setenv("SSL_CERT_DIR", filepath.Join(dir, "none")); err != nil {
		return err
	}
	return os.Setenv("SSL_CERT_FILE", path)
}

// issue makes a certificate for names and addresses that is good for an hour.
func (a *authority) issue(t *testing.T, serial int64, names ...string) (certificate, key []byte) {
	t.Helper()
	return a.issueUntil(t, time.Now().Add(time.Hour), serial, names...)
}

func (a *authority) issueUntil(t *testing.T, until time.Time, serial int64, names ...string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// clientConfig is what a client needs to believe the certificates of one name.
func (a *authority) clientConfig(name string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	return &tls.Config{RootCAs: roots, ServerName: name}
}

// serverConfig is what a server needs to speak TLS.
func (a *authority) serverConfig(t *testing.T, names ...string) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, 2, names...))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}
