package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"
)

// doorkeepers bounds the passwords that are hashed at once: each takes a processor for some 50 ms.
const doorkeepers = 4

// door lets users in by basic authentication.
type door struct {
	vaults map[string]*vault // by user
	some   *vault            // is asked for users that there are not, so that the time tells nobody who there is
	busy   chan struct{}     // one for each password that is being hashed
}

// vault is one hash of a password. It remembers the last password that was right, as a digest.
type vault struct {
	hash  string // as in the file
	right atomic.Pointer[[sha256.Size]byte]
}

// door makes the door of a rule. Vaults with the same hash are the same, also across pushes.
func (t *ways) door(users map[string]string, old *ways) *door {
	d := &door{vaults: map[string]*vault{}, busy: make(chan struct{}, doorkeepers)}
	var names []string
	for name, hash := range users {
		v := t.vaults[hash]
		if v == nil && old != nil {
			v = old.vaults[hash]
		}
		if v == nil {
			v = &vault{hash: hash}
		}
		t.vaults[hash], d.vaults[name] = v, v
		names = append(names, name)
	}
	d.some = d.vaults[slices.Min(names)]
	return d
}

// opens reports whether a request has the name and password of a user. crowded: too many ask at once to tell.
func (d *door) opens(c *call) (open, crowded bool) {
	scheme, text, _ := strings.Cut(c.header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return false, false
	}
	pair, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return false, false
	}
	name, password, ok := strings.Cut(string(pair), ":")
	if !ok {
		return false, false
	}
	v := d.vaults[name]
	if v != nil && v.knows(password) {
		return true, false
	}
	select {
	case d.busy <- struct{}{}:
		defer func() { <-d.busy }()
	default:
		return false, true
	}
	if v == nil {
		d.some.check(password)
		return false, false
	}
	return v.check(password), false
}

// knows reports whether the password was right before.
func (v *vault) knows(password string) bool {
	right := v.right.Load()
	if right == nil {
		return false
	}
	digest := sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(right[:], digest[:]) == 1
}

// check reports whether the password is right, and remembers it then.
func (v *vault) check(password string) bool {
	digest := sha256.Sum256([]byte(password))
	if text, ok := strings.CutPrefix(v.hash, "sha256:"); ok {
		want, err := hex.DecodeString(text)
		return err == nil && subtle.ConstantTimeCompare(want, digest[:]) == 1
	}
	if bcrypt.CompareHashAndPassword([]byte(v.hash), []byte(password)) != nil {
		return false
	}
	v.right.Store(&digest)
	return true
}
