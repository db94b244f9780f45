package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// pairUntil writes a certificate of its own for names.
func pairUntil(t *testing.T, until time.Time, names ...string) spillway.TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: until.Add(-100 * 24 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pair := spillway.TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for file, block := range map[string]*pem.Block{pair.Cert: {Type: "CERTIFICATE", Bytes: der}, pair.Key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pair
}

func secureApp(t spillway.TLS) spillway.App {
	return spillway.App{Name: "shop", Services: []spillway.Service{{
		Name: "web", Host: []string{"shop.example.com"}, TLS: &t, Tracks: []spillway.Track{{Name: "beta", Host: []string{"beta.example.com"}}},
	}}}
}

func TestCertificates_AreCheckedBeforeADeploy(t *testing.T) {
	now := time.Now()
	good := pairUntil(t, now.Add(90*24*time.Hour), "shop.example.com", "beta.example.com")
	other := pairUntil(t, now.Add(90*24*time.Hour), "shop.example.com", "beta.example.com")
	empty := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tls  spillway.TLS
		want string // "" = it is taken
	}{
		"good":            {good, ""},
		"another key":     {spillway.TLS{Cert: good.Cert, Key: other.Key}, other.Key + " is not the key of the certificate " + good.Cert + "; put the key there that this certificate was asked for with; nothing was changed"},
		"no file":         {spillway.TLS{Cert: good.Cert + ".none", Key: good.Key}, "no such file"},
		"automatic":       {spillway.TLS{Auto: true}, ""},
		"root":            {spillway.TLS{Auto: true, Root: good.Cert}, ""},
		"no root":         {spillway.TLS{Auto: true, Root: good.Cert + ".none"}, "root of the certificate authority: open"},
		"root is no root": {spillway.TLS{Auto: true, Root: empty}, "has no certificate in PEM"},
	} {
		err := checkCertificates(secureApp(c.tls))
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "nothing was changed")) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestCertificates_DoubtsAreTold(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		tls         spillway.TLS
		https       string
		deploy      string // part of what a deploy says; "" = nothing
		state, text string // of doctor's check; "" = there is none
	}{
		"good":      {pairUntil(t, now.Add(90*24*time.Hour), "shop.example.com", "beta.example.com"), ":443", "", "ok", ""},
		"wildcard":  {pairUntil(t, now.Add(90*24*time.Hour), "*.example.com"), ":443", "", "ok", ""},
		"one name":  {pairUntil(t, now.Add(90*24*time.Hour), "shop.example.com"), ":443", "is not for beta.example.com: browsers will refuse it", "fail", "in shop: web: the certificate "},
		"expired":   {pairUntil(t, now.Add(-time.Hour), "*.example.com"), ":443", "expired at ", "fail", "expired at "},
		"soon":      {pairUntil(t, now.Add(5*24*time.Hour), "*.example.com"), ":443", "", "warn", "of web in shop expires at "},
		"no HTTPS":  {pairUntil(t, now.Add(90*24*time.Hour), "*.example.com"), "", "start the server with --https :443", "warn", "is not used"},
		"gone":      {spillway.TLS{Cert: "/none.pem", Key: "/none.key"}, ":443", "", "fail", "no such file"},
		"automatic": {spillway.TLS{Auto: true}, ":443", "", "", ""},
		"in vain":   {spillway.TLS{Auto: true}, "", "start the server with --https :443", "", ""},
	} {
		a := secureApp(c.tls)
		doubts := strings.Join(doubtfulCertificates(a, c.https, now), "\n")
		if c.deploy == "" && doubts != "" || !strings.Contains(doubts, c.deploy) {
			t.Errorf("%s: a deploy says %q, want %q", name, doubts, c.deploy)
		}
		checks := fileChecks("shop", a, c.https, nil, now)
		if c.state == "" && len(checks) == 0 {
			continue
		}
		if len(checks) != 1 || checks[0].State != c.state || !strings.Contains(checks[0].Text, c.text) {
			t.Errorf("%s: doctor says %+v, want %s with %q", name, checks, c.state, c.text)
		}
	}
}

// Status and doctor say the same of files that cannot be used, and doctor what is served meanwhile.
func TestCertificates_DoctorHasTheRemedyOfStatus(t *testing.T) {
	files := pairUntil(t, time.Now().Add(90*24*time.Hour), "shop.example.com", "beta.example.com")
	if err := os.WriteFile(files.Cert, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const remedy = "write it whole: to a file beside it, which is then renamed; both files are read again within a second"
	dead := map[string]string{files.Cert: "is empty; the certificate from before is served, which is good until 2030-01-01T00:00:00Z; " + remedy}
	got := fileChecks("shop", secureApp(files), ":443", dead, time.Now())
	want := "of web in shop: " + files.Cert + " is empty; the certificate from before is served, which is good until 2030-01-01T00:00:00Z"
	if len(got) != 1 || got[0].State != "fail" || got[0].Text != want || got[0].Remedy != remedy {
		t.Errorf("doctor says %+v", got)
	}
}

// What an authority is asked for again by itself is told so, and nothing else is.
func TestCertificates_DoctorDoesNotContradictItself(t *testing.T) {
	for why, want := range map[string][2]string{
		"it is not asked for, because this proxy serves no HTTPS; start the server with --https :443": {"it is not asked for, because this proxy serves no HTTPS", "start the server with --https :443"},
		"a wildcard is given only to who changes its DNS; list each name, or give cert and key":       {"a wildcard is given only to who changes its DNS", "list each name, or give cert and key"},
		"there is none yet: it was not reached; see; the next try is at 2026-01-01T00:00:00Z":         {"there is none yet: it was not reached; see; the next try is at 2026-01-01T00:00:00Z", "it is asked for again by itself; status of shop shows when there is one"},
		"there is none yet, and its HTTPS does not work; ca.test is being asked":                      {"there is none yet, and its HTTPS does not work; ca.test is being asked", "it is asked for again by itself; status of shop shows when there is one"},
	} {
		if got := askedCheck("shop", "certificate of a.test", why); got.Text != want[0] || got.Remedy != want[1] || got.State != "fail" {
			t.Errorf("%q: %+v", why, got)
		}
	}
}
