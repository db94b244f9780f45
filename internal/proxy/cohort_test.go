package proxy

import (
	"fmt"
	"math"
	"net/http/cookiejar"
	"net/url"
	"testing"

	"github.com/spillway-dev/spillway"
)

// The vectors are for ever: a change here moves users to the other side.
func TestBucket_NeverChanges(t *testing.T) {
	for _, v := range []struct {
		app    spillway.Ref
		key    string
		bucket spillway.Share
	}{
		{"castle", "42", 1448}, {"castle", "", 9794}, {"castle", "43", 9146}, {"castle@staging", "42", 9341}, {"shop", "user-1", 5847}, {"shop", "ünïcode", 7393},
	} {
		if got := Bucket(v.app, v.key); got != v.bucket {
			t.Errorf("Bucket(%q, %q) = %d, want %d", v.app, v.key, int(got), int(v.bucket))
		}
	}
}

func TestBucket_GivesEachWeightItsShare(t *testing.T) {
	const users = 10_000
	for _, w := range []spillway.Share{100, 500, 1000, 2500, 5000, 9000} {
		n := 0.0
		for i := range users {
			if Bucket(shop, fmt.Sprint("account-", i)) < w {
				n++
			}
		}
		p := float64(w) / float64(spillway.Whole)
		if sigma := math.Sqrt(users * p * (1 - p)); math.Abs(n-users*p) > 3*sigma {
			t.Errorf("%s of %d users: %.0f", w, users, n)
		}
	}
}

func TestEdge_RaisingTheWeightMovesNobodyBack(t *testing.T) {
	side := func(w, bucket spillway.Share) int {
		table := divided(1, w, "", "")
		e := &edge{spec: table.Route.Edges[0]}
		for _, b := range e.spec.Backends {
			e.arms = append(e.arms, arm{Backend: b})
		}
		return e.arm(bucket)
	}
	for bucket := range spillway.Whole {
		before := 0
		for _, w := range []spillway.Share{0, 1, 100, 500, 2500, 5000, 9999, spillway.Whole} {
			now := side(w, bucket)
			if now < before || (now == 1) != (bucket < w) {
				t.Fatalf("bucket %d at %s: side %d after %d", bucket, w, now, before)
			}
			before = now
		}
	}
}

func TestRun_KeepsUsersOnTheirSide(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, text("new")))
	table.Cohort.Key = append(table.Cohort.Key, spillway.KeySource{Kind: "cookie", Name: "_ACCOUNT"})
	table.Route.Trial.Budget = 1000 // admission is not what is tested here
	r.push(table)
	for i := range 20 {
		user := fmt.Sprint("u", i)
		want := "1"
		if Bucket(shop, user) < spillway.Percent(50) {
			want = "2"
		}
		for _, header := range [][]string{{"X-User", user}, {"Cookie", "_ACCOUNT=" + user}, {"X-User", user, "Cookie", "_ACCOUNT=other"}} {
			a := r.get("/", header...)
			if a.release != want || a.header.Get("Set-Cookie") != "" {
				t.Errorf("%v: %+v, want release %s and no cookie", header, a, want)
			}
		}
	}
}

func TestRun_GivesStrangersASignedCookie(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	stable, candidate := replica(t, text("old")), replica(t, text("new"))
	r.push(alone(1, stable))
	if a := r.get("/"); a.header.Get("Set-Cookie") != "" {
		t.Errorf("a cookie although nothing is divided: %v", a.header)
	}
	table := divided(2, spillway.Percent(50), stable, candidate)
	table.Route.Trial.Budget = 1000
	r.push(table)
	seen := map[string]int{}
	for range 30 {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		c := newClient()
		c.Jar = jar
		first, err := do(c, r.url, "GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[first.release]++
		u := &url.URL{Scheme: "http", Host: "shop.test"}
		if len(jar.Cookies(u)) != 1 {
			t.Fatalf("cookies %v", first.header)
		}
		for range 2 {
			again, err := do(c, r.url, "GET", "/", nil)
			if err != nil || again.release != first.release || again.header.Get("Set-Cookie") != "" {
				t.Errorf("second request: %+v %v, first was release %s", again, err, first.release)
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("30 strangers were all dealt to one side: %v", seen)
	}
}

func TestCookieKey_RefusesWhatItDidNotIssue(t *testing.T) {
	key := cookieKey("0123456789abcdef0123456789abcdef")
	id, value := key.issue(shop)
	if got, ok := key.verify(shop, value); !ok || got != id {
		t.Fatalf("own cookie: %q %v", got, ok)
	}
	for name, ok := range map[string]bool{
		"another app": second(key.verify("castle", value)),
		"another key": second(cookieKey("x").verify(shop, value)),
		"changed":     second(key.verify(shop, "A"+value[1:])) && value[0] != 'A',
		"short":       second(key.verify(shop, value[:len(value)-2])),
		"empty":       second(key.verify(shop, "")),
	} {
		if ok {
			t.Errorf("%s: verified", name)
		}
	}
}

func second(_ string, ok bool) bool { return ok }

func FuzzCookieKey_Verify(f *testing.F) {
	key := cookieKey("0123456789abcdef0123456789abcdef")
	f.Add(key.sign(shop, "0123456789abcdef"))
	f.Add(key.sign("castle", "0123456789abcdef"))
	f.Add("")
	f.Add("%%%")
	f.Fuzz(func(t *testing.T, value string) {
		for cookie := range asks("Cookie", cookieName+"="+value).header.Cookies(cookieName) {
			if id, ok := key.verify(shop, cookie); ok && key.sign(shop, id) != cookie {
				t.Errorf("forged: %q", value)
			}
		}
	})
}
