package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/spillway-dev/spillway"
)

// nowhere is an authority that does not answer.
func nowhere(t *testing.T) spillway.TLS {
	return spillway.TLS{Auto: true, CA: "https://" + refused(t) + "/dir", Redirect: true}
}

// An authority that is down costs HTTPS and nothing else; the report says so at once, and after the try why.
func TestAutomatic_ServesHTTPWhenTheAuthorityIsDown(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	terms := nowhere(t)
	r.push(secured(divided(1, spillway.Percent(50), replica(t, text("a")), replica(t, text("b"))), terms))
	if a := r.get("/"); a.status != http.StatusOK {
		t.Errorf("HTTP: %d, want 200", a.status)
	}
	why := func() string { return r.report().Dead["certificate of shop.test"] }
	if !strings.Contains(why(), "there is none yet") {
		t.Errorf("the report says %q", r.report().Dead)
	}
	eventually(t, "the reason", func() bool {
		return strings.Contains(why(), "connection refused") && strings.Contains(why(), "see that this machine has a way to "+terms.CA) &&
			strings.Contains(why(), "the next try is at ")
	})
	if _, err := r.serial("shop.test"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a handshake without a certificate: %v", err)
	}
	before := why0(t, dir)
	r = start(t, dir, true) // the next process knows, and does not ask at once
	if got := why(); !strings.Contains(got, "connection refused") || !strings.Contains(got, before.Next.UTC().Format(time.RFC3339)) {
		t.Errorf("after a hand-over the report says %q, want a try at %v", got, before.Next)
	}
}

// why0 is the one failure on disk.
func why0(t *testing.T, dir string) try {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, acmeDir, "tries.json"))
	if err != nil {
		t.Fatal(err)
	}
	var saved savedTries
	if err := json.Unmarshal(text, &saved); err != nil || len(saved.Tries) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	for _, t := range saved.Tries {
		return t
	}
	return try{}
}

// Without an address for HTTPS nobody is asked, and the report says what to do.
func TestAutomatic_AsksNobodyWithoutHTTPS(t *testing.T) {
	p := &plane{base: t.Context(), apps: map[spillway.Ref]*app{}}
	p.keeper.dir, p.keeper.log, p.keeper.outside = t.TempDir(), testLog(t), &p.outside
	table := secured(divided(1, spillway.Percent(50), "127.0.0.1:1", "127.0.0.1:2"), nowhere(t))
	p.apps[shop] = &app{plane: p, ref: shop, table: table}
	dead := map[string]string{}
	p.badCertificates(table, dead)
	if why := dead["certificate of shop.test"]; len(dead) != 1 || !strings.Contains(why, "start the server with --https :443") {
		t.Errorf("the report says %v", dead)
	}
	if w := p.wanted(); len(w) != 0 {
		t.Errorf("%d certificates are asked for", len(w))
	}
	if p.outside.https = 443; len(p.wanted()) != 1 {
		t.Error("with HTTPS none is asked for")
	}
	if p.frozen = true; len(p.wanted()) != 0 {
		t.Error("a proxy that hands over begins an order")
	}
}

// Hosts that only rules have are served over TLS like the service that a rule leads to.
func TestSecureHosts_AreThoseOfEdgesAndRules(t *testing.T) {
	auto, files := spillway.TLS{Auto: true, Redirect: true}, spillway.TLS{Cert: "/a", Key: "/b"}
	web, api, plain := spillway.Target{Service: "web"}, spillway.Target{Service: "api"}, spillway.Target{Service: "plain"}
	table := spillway.Table{Route: spillway.Route{
		Edges: []spillway.Edge{
			{Service: "api", Hosts: []string{"api.test"}, TLS: &files, Target: api.Name()},
			{Service: "plain", Hosts: []string{"plain.test"}, Target: plain.Name()},
			{Service: "web", Hosts: []string{"shop.test"}, TLS: &auto},
			{Service: "web", TLS: &auto, Target: web.Name()},
		},
		Rules: []spillway.HTTPRule{
			{Hosts: []string{"shop.test", "Other.test"}, To: []spillway.Target{plain, web}},
			{Hosts: []string{"v2.test"}, To: []spillway.Target{api}},
			{Hosts: []string{"open.test"}, To: []spillway.Target{plain}},
			{Hosts: []string{"www.shop.test"}, Redirect: &spillway.Redirect{Host: "shop.test"}},
			{Hosts: []string{"other.test", "*.shop.test"}, To: []spillway.Target{web}},
		},
	}}
	got := map[string]spillway.TLS{}
	secureHosts(table, func(host string, terms spillway.TLS) {
		if _, twice := got[host]; twice {
			t.Errorf("%s comes twice", host)
		}
		got[host] = terms
	})
	want := map[string]spillway.TLS{"api.test": files, "shop.test": auto, "Other.test": auto, "v2.test": files, "www.shop.test": auto, "*.shop.test": auto}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	p := &plane{base: t.Context(), outside: outside{http: 80, https: 443}}
	p.keeper.dir, p.keeper.log, p.keeper.outside = t.TempDir(), testLog(t), &p.outside
	wild := p.keeper.of(auto, "*.shop.test")
	if _, why := wild.problem(time.Now()); wild.due(time.Now()) || !strings.Contains(why, "a wildcard is given only to") {
		t.Errorf("a wildcard is asked for, or without a reason: %q", why)
	}
}

// keep puts a certificate where an order would have.
func keep(t *testing.T, dir, ca, host string, until time.Time, serial int64) {
	t.Helper()
	storage := &certmagic.FileStorage{Path: filepath.Join(dir, acmeDir)}
	issuer := certmagic.ACMEIssuer{CA: ca}
	certificate, key := testAuthority.issueUntil(t, until, serial, host)
	for name, text := range map[string][]byte{
		certmagic.StorageKeys.SiteCert(issuer.IssuerKey(), host): certificate, certmagic.StorageKeys.SitePrivateKey(issuer.IssuerKey(), host): key,
	} {
		if err := storage.Store(t.Context(), name, text); err != nil {
			t.Fatal(err)
		}
	}
}

// What is stored is served from the first moment, without the authority.
func TestAutomatic_ServesWhatIsStored(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	terms := nowhere(t)
	keep(t, dir, terms.CA, "shop.test", time.Now().Add(time.Hour), 21)
	r := start(t, dir, false)
	r.push(secured(divided(1, spillway.Percent(50), replica(t, text("a")), replica(t, text("b"))), terms))
	if n, err := r.serial("shop.test"); err != nil || n != 21 {
		t.Errorf("certificate %d, %v, want 21", n, err)
	}
	if dead := r.report().Dead; len(dead) != 0 {
		t.Errorf("the report says %v", dead)
	}
}

// One that runs out is served until its end, with the reason why there is no other.
func TestAutomatic_SaysWhyItWasNotRenewed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		until time.Duration
		want  string
	}{
		"running out": {10 * time.Minute, "it was not renewed, and is good until "},
		"expired":     {-time.Minute, "it expired at "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			terms := nowhere(t)
			keep(t, dir, terms.CA, "shop.test", time.Now().Add(c.until), 22)
			r := start(t, dir, false)
			r.push(secured(divided(1, spillway.Percent(50), replica(t, text("a")), replica(t, text("b"))), terms))
			eventually(t, c.want, func() bool {
				why := r.report().Dead["certificate of shop.test"]
				return strings.HasPrefix(why, c.want) && strings.Contains(why, "connection refused")
			})
			want := http.StatusPermanentRedirect
			if c.until < 0 { // not to what clients refuse
				want = http.StatusOK
			}
			if a := r.unfollowed("/"); a.status != want {
				t.Errorf("HTTP: %d, want %d", a.status, want)
			}
		})
	}
}

// show puts the answer to a challenge of shop.test where an order would have.
func show(t *testing.T, dir, ca string, c acme.Challenge) {
	t.Helper()
	issuer := certmagic.ACMEIssuer{CA: ca}
	storage := &certmagic.FileStorage{Path: filepath.Join(dir, acmeDir)}
	text, err := json.Marshal(c)
	if err == nil {
		err = storage.Store(t.Context(), path.Join("acme", certmagic.StorageKeys.Safe(issuer.IssuerKey()), "challenge_tokens", "shop.test.json"), text)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A proxy answers for the orders of the process before it, which is on the same directory.
func TestProof_OfTheProcessBefore(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	terms := nowhere(t)
	keep(t, dir, terms.CA, "shop.test", time.Now().Add(time.Hour), 23)
	r := start(t, dir, false)
	r.push(secured(divided(1, spillway.Percent(50), replica(t, text("the app")), replica(t, text("the app"))), terms))
	where := "/.well-known/acme-challenge/token"
	if a := r.get(where, "X-Forwarded-Proto", "https"); a.body != "the app" {
		t.Errorf("an app's own challenge: %q", a.body)
	}
	c := acme.Challenge{Type: acme.ChallengeTypeHTTP01, Token: "token", KeyAuthorization: "token.thumb", Identifier: acme.Identifier{Type: "dns", Value: "shop.test"}}
	show(t, dir, terms.CA, c)
	if a := r.get(where); a.status != http.StatusOK || a.body != "token.thumb" {
		t.Errorf("the challenge: %d %q", a.status, a.body)
	}
	if a := r.get(where + "s"); a.body == "token.thumb" {
		t.Error("the answer to another question")
	}
	prove := func() error {
		config := &tls.Config{ServerName: "shop.test", NextProtos: []string{acmez.ACMETLS1Protocol}, InsecureSkipVerify: true}
		conn, err := tls.Dial("tcp", strings.TrimPrefix(r.tls, "https://"), config)
		if err != nil {
			return err
		}
		defer conn.Close()
		state := conn.ConnectionState()
		if state.NegotiatedProtocol != acmez.ACMETLS1Protocol || len(state.PeerCertificates[0].Extensions) == 0 {
			return errors.New("it shows something else")
		}
		return nil
	}
	if prove() == nil {
		t.Error("a TLS challenge was answered that nobody set")
	}
	c.Type = acme.ChallengeTypeTLSALPN01
	show(t, dir, terms.CA, c)
	if err := prove(); err != nil {
		t.Errorf("the TLS challenge: %v", err)
	}
	if n, err := r.serial("shop.test"); err != nil || n != 23 {
		t.Errorf("users meanwhile: certificate %d, %v", n, err)
	}
}

func TestTrouble_SaysWhyAndWhatNextAndWaitsAccordingly(t *testing.T) {
	const host = "shop.test"
	refusal := func(kind, detail string) error {
		return fmt.Errorf("[%s] solving: %w", host, acme.Problem{Type: acme.ProblemTypeNamespace + kind, Status: 403, Detail: detail})
	}
	a := &acmeAuthority{outside: &outside{http: 8080, https: 8443}, storage: &certmagic.FileStorage{Path: "/acme"}}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		err         error
		why         string
		first, last time.Duration
	}{
		{refusal("dns", "no A record.\n"), "acme-v02.api.letsencrypt.org refuses: no A record; give shop.test an A or AAAA record with the address of this machine", 10 * time.Minute, 6 * time.Hour},
		{refusal("connection", "timeout"), "see that ports 80 and 443 of shop.test lead to ports 8080 and 8443 of this machine", 10 * time.Minute, 6 * time.Hour},
		{refusal("unauthorized", "404"), "lead to this machine", 10 * time.Minute, 6 * time.Hour},
		{refusal("caa", "no"), "CAA record", 10 * time.Minute, 6 * time.Hour},
		{refusal("rateLimited", "too many certificates"), "too many certificates; it has a limit, which passes by itself", time.Hour, 6 * time.Hour},
		{refusal("rejectedIdentifier", "policy"), "it gives none for this name", 10 * time.Minute, 6 * time.Hour},
		{refusal("serverInternal", "oops"), "the trouble is at the authority", 10 * time.Minute, 6 * time.Hour},
		{refusal("invalidContact", "no MX"), "mend email in tls.acme", 10 * time.Minute, 6 * time.Hour},
		{refusal("externalAccountRequired", "EAB"), "choose another ca", 10 * time.Minute, 6 * time.Hour},
		{acme.Problem{Type: acme.ProblemTypeCompound, Subproblems: []acme.Subproblem{{Problem: acme.Problem{Type: acme.ProblemTypeDNS, Detail: "inner"}}}}, "refuses: inner; give shop.test an A", 10 * time.Minute, 6 * time.Hour},
		{rootError{os.ErrNotExist}, "the root of the authority: file does not exist; mend the file", 10 * time.Second, time.Hour},
		{fmt.Errorf("get: %w", x509.UnknownAuthorityError{}), "is not who it says: x509: certificate signed by unknown authority; name its root certificate in tls.acme.root", 10 * time.Second, time.Hour},
		{fmt.Errorf("get: %w", context.DeadlineExceeded), "did not come to an end within 3m0s", 10 * time.Second, time.Hour},
		{fmt.Errorf("get: %w", syscall.EMFILE), "has no file descriptor left to ask acme-v02.api.letsencrypt.org: too many open files; raise the limit of open files of the server: LimitNOFILE=", 10 * time.Second, time.Hour},
		{errors.New("dial: socket: too many open files"), "LimitNOFILE=", 10 * time.Second, time.Hour},
		{fmt.Errorf("save: %w", syscall.ENOSPC), "cannot be kept in /acme: no space left on device; free space on that file system", 10 * time.Second, time.Hour},
		{storedError{fmt.Errorf("/acme/x: %w; remove that directory, and another is asked for", io.EOF)}, "cannot be used: /acme/x: EOF; remove that directory, and another is asked for", 10 * time.Second, time.Hour},
		{fmt.Errorf("get: %w", io.ErrUnexpectedEOF), "was not reached, or not understood: unexpected EOF; see that this machine has a way to https://acme-v02.api.letsencrypt.org/directory", 10 * time.Second, time.Hour},
	} {
		got := a.trouble(host, c.err)
		if !strings.Contains(got.why, c.why) {
			t.Errorf("%v:\n  %q has no\n  %q", c.err, got.why, c.why)
		}
		first := got.after(try{}, now)
		if first.Failures != 1 || first.Next.Sub(now) != c.first {
			t.Errorf("%v: first %+v, want a wait of %v", c.err, first, c.first)
		}
		if last := got.after(try{Failures: 99}, now); last.Next.Sub(now) != c.last {
			t.Errorf("%v: at last %+v, want a wait of %v", c.err, last, c.last)
		}
	}
}

// In the first hour, in which Let's Encrypt lets a name fail 5 times and once more every 12 minutes, an order that
// costs two failures is not made oftener than that.
func TestTrouble_KeepsBelowTheLimitOfTheAuthority(t *testing.T) {
	left, spent := 5.0, time.Duration(0)
	for i := range 200 {
		if left -= 2; left < 0 {
			t.Fatalf("try %d, after %v, is one too many", i+1, spent)
		}
		wait := waitsRefused[min(i, len(waitsRefused)-1)]
		spent += wait
		left = min(5, left+float64(wait)/float64(12*time.Minute))
	}
}

func TestReadTries_ForgetsWhatItCannotRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tries.json")
	for _, text := range []string{"", "{", `{"version":2,"tries":{"a b":{"failures":1}}}`, `{"version":1}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if tries := readTries(file, testLog(t)); tries == nil || len(tries) != 0 {
			t.Errorf("%q: %v", text, tries)
		}
	}
	if tries := readTries(file+".none", testLog(t)); tries == nil {
		t.Error("no file: nil")
	}
}
