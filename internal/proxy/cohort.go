package proxy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spillway-dev/spillway"
)

const (
	// cookieName is the signed first-party cookie of users whom no key source identifies.
	cookieName = "spillway"
	// bucketHeader carries the bucket of a request to the replicas, and from them to private edges. See unit.appendPass.
	bucketHeader = "X-Spillway-Bucket"
	// cookieAge is how long a browser keeps the cookie, in seconds: a year.
	cookieAge = 365 * 24 * 60 * 60

	idSize  = 16 // random bytes in a cookie
	tagSize = 16 // bytes of the truncated HMAC-SHA256 behind them
)

// Bucket is the bucket in [0, spillway.Whole) of a user of an app. It never changes between versions:
// users would change sides. It is FNV-1a (64 bit) over the app, one zero byte and the key, finished with
// the mixer of SplitMix64 (FNV alone spreads short keys badly), modulo 10,000.
//
// Worked example: Bucket("castle", "42") is 1448.
func Bucket(app spillway.Ref, key string) spillway.Share {
	return bucketOf(hashKey(app, key))
}

func bucketOf(hash uint64) spillway.Share { return spillway.Share(hash % uint64(spillway.Whole)) }

// hashKey is the 64-bit hash behind Bucket. It also stands for the user where errors are counted once.
func hashKey(app spillway.Ref, key string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(app) {
		h = (h ^ uint64(app[i])) * prime
	}
	h *= prime // the zero byte
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// unit is the one behind a request: what is dealt to a release, and whose first error counts.
type unit struct {
	bucket spillway.Share
	key    uint64 // 0 = nobody in particular: every request is a unit of its own
	cookie string // value of the cookie to set on the answer; "" = none
	tossed *edge  // the bucket was drawn half and half for the two sides of this edge; nil = it is even
	within bool   // tossed among those whom a rule leads to stable and its candidate
	uneven bool   // not all buckets were equally likely, so that what is dealt by it is no evidence
}

// appendPass appends the bucket as it is told to replicas: a number, after a + if not all were equally likely.
func (u unit) appendPass(b []byte) []byte {
	if u.tossed != nil || u.uneven {
		b = append(b, '+')
	}
	return strconv.AppendInt(b, int64(u.bucket), 10)
}

// identify finds out who is behind a request on an edge.
func (e *edge) identify(c *call, k keys) unit {
	app := e.app.ref
	if e.private() {
		return privateUnit(app, c)
	}
	if k.synthetic.made(c) {
		return e.toss()
	}
	for _, source := range e.cohort.Key {
		if key := keyFrom(source, c); key != "" {
			h := hashKey(app, key)
			return unit{bucket: bucketOf(h), key: h}
		}
	}
	for value := range c.header.Cookies(cookieName) {
		if id, ok := k.cookie.verify(app, value); ok {
			h := hashKey(app, id)
			return unit{bucket: bucketOf(h), key: h}
		}
	}
	if i, weight := e.chosen(c, 0); !e.sticky || i >= 0 && weight == 0 { // the rule says it each time
		return unit{bucket: randomBucket()}
	}
	id, value := k.cookie.issue(app)
	h := hashKey(app, id)
	return unit{bucket: bucketOf(h), key: h, cookie: value}
}

// privateUnit takes the bucket that the calling replica passes on from its own request. The user behind
// it is not known here, so the bucket stands for its users.
func privateUnit(app spillway.Ref, c *call) unit {
	text := c.header.Get(bucketHeader)
	digits, uneven := strings.CutPrefix(text, "+")
	if b, err := strconv.Atoi(digits); err == nil && b >= 0 && b < int(spillway.Whole) {
		return unit{bucket: spillway.Share(b), key: hashKey(app, "bucket "+digits), uneven: uneven}
	}
	return unit{bucket: randomBucket()}
}

func randomBucket() spillway.Share { return spillway.Share(mathrand.IntN(int(spillway.Whole))) }

func keyFrom(source spillway.KeySource, c *call) string {
	switch source.Kind {
	case "header":
		return c.header.Get(source.Name)
	case "cookie":
		for value := range c.header.Cookies(source.Name) {
			return value
		}
	}
	return ""
}

// keys are the secrets of a proxy.
type keys struct {
	cookie    cookieKey
	synthetic syntheticKey
}

// cookieKey signs cookies, so that nobody can choose a release by making cookies up.
type cookieKey []byte

// loadCookieKey reads the key, or makes one at the first start. Losing it only deals users anew.
func loadCookieKey(dir string) (cookieKey, error) {
	path := filepath.Join(dir, "cookie.key")
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key) // never fails
		err = writeFile(path, key)
	}
	if err != nil {
		return nil, fmt.Errorf("cookie key: %w", err)
	}
	if len(key) < 32 {
		return nil, fmt.Errorf("cookie key %s has %d bytes instead of 32: remove it to have a new one made (users are dealt anew): %w", path, len(key), spillway.ErrInvalid)
	}
	return key, nil
}

// issue makes the identity of a new user and the cookie value that carries it.
func (k cookieKey) issue(app spillway.Ref) (id, value string) {
	raw := make([]byte, idSize)
	rand.Read(raw)
	id = string(raw)
	return id, k.sign(app, id)
}

// sign is the cookie value of an identity: id and tag in base64.
func (k cookieKey) sign(app spillway.Ref, id string) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte(id), k.tag(app, id)...))
}

// verify gives the identity in a cookie value that this key issued for the app.
func (k cookieKey) verify(app spillway.Ref, value string) (id string, ok bool) {
	if len(value) != base64.RawURLEncoding.EncodedLen(idSize+tagSize) {
		return "", false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || len(raw) != idSize+tagSize { // line ends are passed over
		return "", false
	}
	id = string(raw[:idSize])
	return id, hmac.Equal(raw[idSize:], k.tag(app, id))
}

func (k cookieKey) tag(app spillway.Ref, id string) []byte {
	mac := hmac.New(sha256.New, k)
	mac.Write([]byte(string(app) + "\x00" + id))
	return mac.Sum(nil)[:tagSize]
}
