package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-dev/spillway"
)

var (
	loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	// v2Header says that 203.0.113.9:4711 connected to 198.51.100.1:443, as the specification lays it out.
	v2Header = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\xcb\x00\x71\x09\xc6\x33\x64\x01\x12\x67\x01\xbb"
	v2Local  = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
)

const v1Header = "PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"

func TestTrust_KnowsTheListAndThisMachine(t *testing.T) {
	var tr trust
	own := netip.MustParseAddr("198.51.100.1") // where they connect to
	tr.extend([]netip.Prefix{netip.MustParsePrefix("10.1.2.3/8"), netip.MustParsePrefix("2001:db8::/32")})
	for text, want := range map[string]bool{
		"10.255.0.1": true, "::ffff:10.0.0.1": true, "11.0.0.1": false, "2001:db8::1": true, "2001:db9::1": false,
		"127.0.0.9": true, "::1": true, "198.51.100.7": false, "198.51.100.1": true, "::ffff:198.51.100.1": true,
	} {
		if got := tr.trusts(netip.MustParseAddr(text), own); got != want {
			t.Errorf("%s is trusted: %v, want %v", text, got, want)
		}
	}
	if tr.trusts(netip.Addr{}, netip.Addr{}) || (&trust{}).trusts(netip.MustParseAddr("10.0.0.1"), own) {
		t.Error("somebody is trusted without a reason")
	}
}

func TestFront_BelievesTheList(t *testing.T) {
	p := &plane{}
	p.trust.extend([]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")})
	for from, want := range map[string]string{"198.51.100.7": "203.0.113.9, 198.51.100.7", "198.51.101.7": "198.51.101.7"} {
		f := &front{plane: p}
		f.from(netip.MustParseAddr(from))
		c := asks("X-Forwarded-For", "203.0.113.9")
		c.ours, c.peer = f.ours, f.peer
		if got := c.forwardedFor(); got != want {
			t.Errorf("from %s: %q, want %q", from, got, want)
		}
	}
}

// Who must send a header, and who may.
func TestNeedOf(t *testing.T) {
	p := &plane{headers: true}
	p.trust.extend([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32")})
	for text, want := range map[string][2]need{ // at HTTP, at TCP
		"10.0.0.1": {mustHave, mustHave}, "127.0.0.1": {mayHave, mustHave}, "127.0.0.2": {mayHave, noHeader}, "192.0.2.1": {noHeader, noHeader}, "192.0.2.9": {mayHave, noHeader},
	} {
		ip := netip.MustParseAddr(text)
		if got := [2]need{p.needOf(ip, netip.MustParseAddr("192.0.2.9")), p.needOfTCP(ip)}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
		if off := (&plane{trust: p.trust}); off.needOf(ip, ip) != noHeader || off.needOfTCP(ip) != noHeader {
			t.Errorf("%s: headers are expected that nobody asked for", text)
		}
	}
}

func TestReadAnnouncement(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		need    need
		client  string // "" = nothing is said
		refused bool
	}{
		"v1":                      {text: v1Header, client: "203.0.113.9:4711"},
		"v1, IPv6":                {text: "PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n", client: "[2001:db8::9]:4711"},
		"v1 of nobody":            {text: "PROXY UNKNOWN\r\n"},
		"v2":                      {text: v2Header, client: "203.0.113.9:4711"},
		"v2 of a probe":           {text: v2Local},
		"none, and none needed":   {need: mayHave},
		"none":                    {need: mustHave, refused: true},
		"v1 without end":          {text: "PROXY TCP4 203.0.113.9 " + strings.Repeat("1", 200), refused: true},
		"v1 with a name":          {text: "PROXY TCP4 a.example.com 198.51.100.1 4711 443\r\n", refused: true},
		"v1, bare line feed":      {text: strings.Replace(v1Header, "\r", "", 1), refused: true},
		"v1, port too large":      {text: "PROXY TCP4 203.0.113.9 198.51.100.1 70000 443\r\n", refused: true},
		"v2 of version 3":         {text: strings.Replace(v2Header, "\x21", "\x31", 1), refused: true},
		"v2, shorter than it is":  {text: strings.Replace(v2Header, "\x00\x0c", "\x00\x03", 1), refused: true},
		"v2 that lies on its way": {text: v2Header[:20], refused: true},
	} {
		for _, n := range []need{mayHave, mustHave} {
			if c.need != noHeader && n != c.need {
				continue
			}
			a, b := net.Pipe()
			go func() { // owned by the test; ends when b is closed
				for i := range len(c.text) { // in as many parts as there can be
					_, _ = io.WriteString(b, c.text[i:i+1])
				}
				if !c.refused || c.text == "" {
					_, _ = io.WriteString(b, "GET / HTTP/1.1\r\n")
				}
				b.Close()
			}()
			said, head, err := readAnnouncement(a, n)
			got := ""
			if said != nil {
				got = said.client.String()
			}
			if (err != nil) != c.refused || got != c.client {
				t.Errorf("%s, %v: client %q, error %v", name, n, got, err)
			}
			if rest, _ := io.ReadAll(a); err == nil && string(head)+string(rest) != "GET / HTTP/1.1\r\n" {
				t.Errorf("%s, %v: behind it is %q%q", name, n, head, rest)
			}
			a.Close()
		}
	}
}

func TestReadAnnouncement_DoesNotWaitForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		go func() { // owned by the test; ends when a is closed
			_, _ = io.WriteString(b, "PROXY TCP4 203.0")
		}()
		begin := time.Now()
		if _, _, err := readAnnouncement(a, mustHave); err == nil || time.Since(begin) != headerTimeout {
			t.Errorf("error %v after %s, want one after %s", err, time.Since(begin), headerTimeout)
		}
		a.Close()
	})
}

func FuzzReadAnnouncement(f *testing.F) {
	for _, s := range []string{v1Header, v2Header, v2Local, "PROXY ", "\r\n\r\n\x00\r\nQUIT\n", "GET / HTTP/1.1\r\n"} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, must bool) {
		n := mayHave
		if must {
			n = mustHave
		}
		c := &recorded{r: bytes.NewReader(text)}
		said, head, err := readAnnouncement(c, n)
		rest, _ := io.ReadAll(c.r)
		if behind := append(head, rest...); err == nil && !bytes.HasSuffix(text, behind) {
			t.Errorf("%q is not the end of %q", behind, text)
		}
		if err == nil && said != nil && (said.client == nil || said.server == nil || said.client.IP == nil) {
			t.Errorf("%q announces %+v", text, said)
		}
	})
}

// recorded is a connection on which everything was said already.
type recorded struct {
	net.Conn
	r io.Reader
}

func (c *recorded) Read(b []byte) (int, error)      { return c.r.Read(b) }
func (c *recorded) SetReadDeadline(time.Time) error { return nil }

// Who is behind a connection to the public addresses is what the header says, over HTTP and HTTPS; what the client itself
// says about whom it forwards for is not believed, because it is not of the list.
func TestAnnounced_IsTheClientOfTheRequest(t *testing.T) {
	p := startWith(t, tempDir(t), Config{ProxyProtocol: true, Trust: loopback})
	table := alone(1, replica(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Forwarded-For")) }))
	files := spillway.TLS{Cert: filepath.Join(t.TempDir(), "cert.pem"), Key: filepath.Join(t.TempDir(), "key.pem")}
	cert, key := testAuthority.issue(t, 1, "shop.test")
	write(t, files, cert, key)
	table.Route.Edges[0].TLS = &files
	p.push(table)
	const request = "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 192.0.2.66\r\nConnection: close\r\n\r\n"
	body := func(c net.Conn) string {
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for header, want := range map[string]string{v1Header: "203.0.113.9", v2Header: "203.0.113.9", v2Local: "192.0.2.66, 127.0.0.1", "": "192.0.2.66, 127.0.0.1"} {
		c := caller(t, "", strings.TrimPrefix(p.url, "http://"))
		_, _ = io.WriteString(c, header)
		if got := body(c); got != want {
			t.Errorf("behind %q: %q, want %q", header, got, want)
		}
		c = caller(t, "", strings.TrimPrefix(p.tls, "https://"))
		_, _ = io.WriteString(c, header)
		if got := body(tls.Client(c, &tls.Config{ServerName: "shop.test", InsecureSkipVerify: true})); got != want {
			t.Errorf("behind %q, over TLS: %q, want %q", header, got, want)
		}
	}
	c := caller(t, "", strings.TrimPrefix(p.url, "http://"))
	_, _ = io.WriteString(c, "PROXY TCP4 nonsense\r\n"+request)
	if text, err := io.ReadAll(c); len(text) > 0 {
		t.Errorf("behind a malformed header: %q, error %v", text, err)
	}
}

// At an address of TCP a header is required of those who are listed. It decides where the connection goes, and a replica
// that wants to know is told.
func TestAnnounced_IsTheClientOfTheConnection(t *testing.T) {
	for _, version := range []spillway.Announce{spillway.AnnounceV1, spillway.AnnounceV2} {
		t.Run(string(version), func(t *testing.T) {
			p, address := startWith(t, tempDir(t), Config{ProxyProtocol: true, Trust: loopback[:1]}), unused(t)
			told := server(t, func(c *net.TCPConn) {
				said, head, err := readAnnouncement(c, mustHave)
				if err != nil {
					t.Error(err)
					return
				}
				line, _ := bufio.NewReader(io.MultiReader(bytes.NewReader(head), c)).ReadString('\n')
				fmt.Fprintf(c, "%s>%s %s", said.client, said.server, line)
			})
			table := trying(1, address, Bucket(shop, "203.0.113.9")+1, refused(t), told) // the candidate's highest bucket
			table.Route.Edges[0].Backends[1].Announce = version
			p.push(table)
			c := caller(t, "", address)
			_, _ = io.WriteString(c, v2Header)
			wantAnswer(t, c, "x", "203.0.113.9:4711>198.51.100.1:443 x")
			c = caller(t, "", address)
			_, _ = io.WriteString(c, "a line as long as a header\n")
			if text, _ := io.ReadAll(c); len(text) > 0 {
				t.Errorf("without a header: %q", text)
			}
		})
	}
}

// Without anybody in front, the replica is told the address of the peer.
func TestAnnounced_IsThePeer(t *testing.T) {
	p, address := start(t, tempDir(t), false), unused(t)
	table := passing(1, address, server(t, func(c *net.TCPConn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		_, _ = io.WriteString(c, line)
	}))
	table.Route.Edges[0].Backends[0].Announce = spillway.AnnounceV1
	p.push(table)
	c := caller(t, "127.0.0.7", address)
	_, port, _ := net.SplitHostPort(address)
	wantAnswer(t, c, "x", fmt.Sprintf("PROXY TCP4 127.0.0.7 127.0.0.3 %d %s\r", c.LocalAddr().(*net.TCPAddr).Port, port))
}
