package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The answers of the backend.
const (
	smallBody = 200
	largeBody = 64 << 10
)

func bodySize(path string) int {
	if path == "/64k" {
		return largeBody
	}
	return smallBody
}

// backendConfig is an nginx with one worker: 200 bytes from its configuration, 64 KB by sendfile.
func backendConfig(dir string, port int) string {
	return fmt.Sprintf(`worker_processes 1;
daemon off;
pid %[1]s/nginx.pid;
error_log stderr crit;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=8;
  server {
    listen 127.0.0.1:%[2]d backlog=4096;
    root %[1]s/files;
    location = /200 { default_type text/plain; return 200 "%[3]s"; }
    location = /64k { default_type application/octet-stream; }
  }
}
`, dir, port, strings.Repeat("x", smallBody))
}

// startBackend starts what all proxies pass requests to.
func startBackend(ctx context.Context, dir string) (*process, string, error) {
	if err := os.MkdirAll(filepath.Join(dir, "files"), 0o755); err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "files", "64k"), []byte(strings.Repeat("y", largeBody)), 0o644); err != nil {
		return nil, "", err
	}
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	p, err := startNginx(dir, "backend", backendConfig(dir, port))
	if err != nil {
		return nil, "", err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	for _, path := range []string{"/200", "/64k"} {
		if err := await(ctx, setup{testCase: testCase{path: path}, peer: &peer{}, backend: address}, p); err != nil {
			p.end()
			return nil, "", fmt.Errorf("the backend: %w: %s", err, p.said())
		}
	}
	return p, address, nil
}

// startNginx runs an nginx with a configuration. -e says where it writes before it has read that.
func startNginx(dir, name, config string) (*process, error) {
	if os.Geteuid() == 0 {
		config = "user root;\n" + config // its workers would else be nobody, who cannot read dir
	}
	path, _ := program("nginx") // needed has looked
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return start(dir, name, nil, path, "-e", "stderr", "-p", dir, "-c", file)
}

// certify makes a certificate for localhost that lasts a day, and its key: cert.pem, key.pem, pair.pem.
func certify(dir string) (cert, key, pair string, err error) {
	cert, key, pair = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "pair.pem")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", "", err
	}
	certText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for file, text := range map[string][]byte{cert: certText, key: keyText, pair: append(append([]byte{}, certText...), keyText...)} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", "", "", err
		}
	}
	return cert, key, pair, nil
}
