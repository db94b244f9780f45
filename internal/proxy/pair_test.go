package proxy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// Whatever is wrong with files of a certificate, it is told which file it is, why, and what to do.
func TestReadPair_SaysWhichFileWhyAndWhatNext(t *testing.T) {
	certificate, key := testAuthority.issue(t, 1, "shop.test")
	_, other := testAuthority.issue(t, 2, "shop.test")
	parameters := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
	sealed := "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
	broken := "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n"
	for name, c := range map[string]struct {
		cert, key         string
		file, why, remedy string // file "" = it is taken
	}{
		"good":             {string(certificate), string(key), "", "", ""},
		"parameters":       {string(certificate), parameters + string(key), "", "", ""},
		"empty":            {"", string(key), "cert", "is empty", "write it whole"},
		"blank key":        {string(certificate), "\n", "key", "is empty", "write it whole"},
		"half":             {string(certificate[:len(certificate)/2]), string(key), "cert", "is cut off", "write it whole"},
		"half a key":       {string(certificate), string(key[:40]), "key", "is cut off", "write it whole"},
		"no PEM":           {"hello", string(key), "cert", "holds no PEM", "put the certificate there as PEM"},
		"exchanged":        {string(key), string(certificate), "cert", "holds a PRIVATE KEY and no CERTIFICATE", "let cert in tls name the certificate"},
		"another's key":    {string(certificate), string(other), "key", "is not the key of the certificate ", "put the key there that"},
		"passphrase":       {string(certificate), sealed, "key", "holds a key that cannot be used", "without a passphrase"},
		"no certificate":   {broken, string(key), "cert", "holds a certificate that cannot be used: x509: ", "put a good one in its place"},
		"missing":          {"-", string(key), "cert", "cannot be read: no such file or directory", "put it there, or mend cert in tls"},
		"missing key":      {string(certificate), "-", "key", "cannot be read: no such file or directory", "put it there, or mend key in tls"},
		"larger than PEMs": {strings.Repeat("x", maxPEM+1), string(key), "cert", "cannot be read: it is no file", "put it there"},
	} {
		files := pairIn(t.TempDir(), "shop")
		for path, text := range map[string]string{files.Cert: c.cert, files.Key: c.key} {
			if text == "-" {
				continue
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		pair, err := ReadPair(files)
		var bad *PairError
		switch found := errors.As(err, &bad); {
		case c.file == "":
			if found || err != nil || pair == nil {
				t.Errorf("%s: %v", name, err)
			}
		case !found || bad.File != map[string]string{"cert": files.Cert, "key": files.Key}[c.file] || !strings.HasPrefix(bad.Why, c.why) || !strings.HasPrefix(strings.TrimPrefix(bad.Remedy, "write it as PEM "), c.remedy):
			t.Errorf("%s: %#v", name, err)
		}
	}
}

func TestReadPair_SaysWhoMayNotRead(t *testing.T) {
	if os.Geteuid() == 0 {
		if e := unread("/x", "key", os.ErrPermission); !strings.Contains(e.Remedy, "let the user 0, who runs the server, read it") {
			t.Errorf("%+v", e)
		}
		return // root may read everything
	}
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, nil, 0); err != nil {
		t.Fatal(err)
	}
	_, err := ReadPair(spillway.TLS{Cert: file, Key: file})
	var bad *PairError
	if !errors.As(err, &bad) || !strings.Contains(bad.Remedy, "who runs the server, read it") {
		t.Errorf("%v", err)
	}
}

func TestStale_SaysWhenAndWhatNext(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	files := pairIn(dir, "shop")
	certificate, key := testAuthority.issueUntil(t, now.Add(time.Minute), 1, "shop.test")
	write(t, files, certificate, key)
	pair, err := ReadPair(files)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Time][2]string{
		now:                                 {"", ""},
		now.Add(2 * time.Hour):              {"expired at 2", "put a renewed one in its place, with its key; both files are read again"},
		pair.Leaf.NotBefore.Add(-time.Hour): {"is good only from 2", "see that the clock of this machine is right"},
	} {
		if why, remedy := Stale(pair, at); !strings.HasPrefix(why, want[0]) || !strings.HasPrefix(remedy, want[1]) || (why == "") != (want[0] == "") {
			t.Errorf("at %v: %q, %q", at, why, remedy)
		}
	}
}
