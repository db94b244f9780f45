package proxy

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/spillway-dev/spillway"
)

// syntheticHeader carries the synthetic key to the proxy, and from there "1" to the replica. Without the
// key it goes no further: nobody else may have requests of his own counted as evidence.
const syntheticHeader = "X-Spillway-Synthetic"

// syntheticKey is what a request shows to be dealt half and half between candidate and baseline.
type syntheticKey string

// SyntheticKey is the value of the X-Spillway-Synthetic header with which a request to a public edge counts
// as Spillway's own, as the proxy that serves on dir (Config.Dir) keeps it: while a candidate is tried, it is
// dealt half and half, and it never gets a cookie. ErrNotFound before the first proxy has started there.
func SyntheticKey(dir string) (string, error) {
	path := filepath.Join(dir, "synthetic.key")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("key of synthetic requests %s: %w", path, spillway.ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("key of synthetic requests: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if raw, err := hex.DecodeString(key); err != nil || len(raw) < 16 {
		return "", fmt.Errorf("key of synthetic requests %s is not 32 hexadecimal digits or more: remove it and start the proxy anew: %w", path, spillway.ErrInvalid)
	}
	return key, nil
}

// loadSyntheticKey reads the key, or makes one at the first start.
func loadSyntheticKey(dir string) (syntheticKey, error) {
	key, err := SyntheticKey(dir)
	if errors.Is(err, spillway.ErrNotFound) {
		raw := make([]byte, 32)
		rand.Read(raw) // never fails
		key = hex.EncodeToString(raw)
		if err = writeFile(filepath.Join(dir, "synthetic.key"), []byte(key+"\n")); err != nil {
			err = fmt.Errorf("key of synthetic requests: %w", err)
		}
	}
	return syntheticKey(key), err
}

// made reports whether a request is Spillway's own.
func (k syntheticKey) made(c *call) bool {
	shown := c.header.Get(syntheticHeader) // nearly always none
	return shown != "" && subtle.ConstantTimeCompare([]byte(shown), []byte(k)) == 1
}

// toss is the unit of a synthetic request: nobody, with a bucket of the candidate or of the baseline, at
// even odds. The bucket and not the arm is drawn, so that tiers further behind deal it to the same side.
// Where all users are of other tracks, it is a bucket among those whom a rule leads to the two. Where only
// one of them has users it is a bucket like any other: an arm without users gets no request.
func (e *edge) toss() unit {
	if bucket, ok := e.even(e.weight); ok {
		return unit{bucket: bucket, tossed: e}
	}
	within := func(i int) spillway.Share { return e.arms[i].Within }
	if bucket, ok := e.even(within); ok && !e.tripped() {
		return unit{bucket: bucket, tossed: e, within: true}
	}
	return unit{bucket: randomBucket()}
}

// even draws a bucket of the candidate or of the baseline at even odds, where the arms have the weights
// given; false when only one of them has buckets.
func (e *edge) even(weight func(arm int) spillway.Share) (spillway.Share, bool) {
	var sides [2][][2]spillway.Share // ranges of buckets: of the baseline, of the candidate
	upTo := spillway.Share(0)
	for i := len(e.arms) - 1; i >= 0; i-- {
		from := upTo
		upTo += weight(i)
		switch a := e.arms[i]; {
		case upTo == from:
		case a.candidate:
			sides[1] = append(sides[1], [2]spillway.Share{from, upTo})
		case a.baseline:
			sides[0] = append(sides[0], [2]spillway.Share{from, upTo})
		}
	}
	if len(sides[0]) == 0 || len(sides[1]) == 0 {
		return 0, false
	}
	return draw(sides[mathrand.IntN(2)]), true
}

// draw gives one of the buckets in the ranges.
func draw(ranges [][2]spillway.Share) spillway.Share {
	n := spillway.Share(0)
	for _, r := range ranges {
		n += r[1] - r[0]
	}
	k := spillway.Share(mathrand.IntN(int(n)))
	for _, r := range ranges {
		if k < r[1]-r[0] {
			return r[0] + k
		}
		k -= r[1] - r[0]
	}
	panic("a bucket beyond all ranges")
}
