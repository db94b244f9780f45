package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// h2exceptions are the cases of h2spec that the proxy does not pass, with the reason. All of them are ways of
// the server in net/http. Their numbers begin with the section of RFC 7540.
var h2exceptions = map[string]string{
	"http2/4.2/3":     "the server says in its settings that frames of 1 MB are fine; the case sends 20 KB and takes 16 KB for the limit",
	"http2/6.5.3/1":   "a setting that comes twice in one frame ends the connection, which bounds what a client can make the server do",
	"http2/8.1.2.2/1": "Connection in a request is answered 400 instead of with a stream error; it reaches no replica",
	"http2/8.1.2.2/2": "TE other than trailers is answered 400 instead of with a stream error; it reaches no replica",
}

// TestH2Spec runs the conformance suite for HTTP/2 against the real program over TLS.
func TestH2Spec(t *testing.T) {
	in := installTLS(t)
	dir := t.TempDir()
	certifyFor(t, dir, "localhost")
	writeFile(t, filepath.Join(dir, "spillway.yaml"), fmt.Sprintf(`app: h2
services:
  web:
    run: [%s, site]
    host: localhost
    tls: {cert: %q, key: %q}
`, self, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")))
	in.spillway("deploy", dir).want(t, 0)
	failed, total := h2cases(t, in.https)
	t.Logf("%d of %d cases pass", total-len(failed), total)
	if total != 145 {
		t.Errorf("the suite has %d cases, want 145", total)
	}
	if n := total - len(failed); n < 141 {
		t.Errorf("%d of %d cases pass, want 141 or more", n, total)
	}
	for _, id := range slices.Sorted(maps.Keys(failed)) {
		if h2exceptions[id] == "" {
			t.Errorf("%s fails: %s", id, failed[id])
		}
	}
	for id := range h2exceptions {
		if failed[id] == "" {
			t.Errorf("%s passes now: take it from the list", id)
		}
	}
}

// h2cases runs the suite, and gives the cases that failed, each with what was asked for.
func h2cases(t *testing.T, address string) (failed map[string]string, total int) {
	t.Helper()
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if host == "127.0.0.1" {
		host = "localhost" // the name of the app, which is sent as authority
	}
	c := &config.Config{Host: host, Port: port, Path: "/", Timeout: 3 * time.Second, MaxHeaderLen: 4000, TLS: true, Insecure: true}
	quiet(t)
	failed = map[string]string{}
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(c)
		total += collect(group, failed)
	}
	return failed, total
}

// collect adds the failed cases of a group, and counts all of them.
func collect(g *spec.TestGroup, failed map[string]string) (total int) {
	for _, tc := range slices.Concat(g.Tests, g.StrictTests) {
		if tc.Result == nil {
			continue
		}
		total++
		if tc.Result.Failed {
			what := tc.Result.Error.Error()
			var e *spec.TestError
			if errors.As(tc.Result.Error, &e) {
				what = fmt.Sprintf("want %s; got %s", strings.Join(e.Expected, " or "), e.Actual)
			}
			failed[fmt.Sprintf("%s/%d", g.ID(), tc.Result.Sequence)] = tc.Desc + ": " + what
		}
	}
	for _, below := range g.Groups {
		total += collect(below, failed)
	}
	return total
}

// quiet keeps what the suite prints from the output until the test ends.
func quiet(t *testing.T) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = null
	t.Cleanup(func() {
		os.Stdout = stdout
		null.Close()
	})
}

// certifyFor makes cert.pem and key.pem for a name, for which nobody vouches.
func certifyFor(t *testing.T, dir, name string) {
	t.Helper()
	need(t, "openssl")
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN="+name, "-addext", "subjectAltName=DNS:"+name,
		"-keyout", filepath.Join(dir, "key.pem"), "-out", filepath.Join(dir, "cert.pem")).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
}
