package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spillway-dev/spillway"
)

// tokensName is the file of the hashed tokens in the state directory.
const tokensName = "tokens.json"

// tokensVersion is the newest format of that file that this program reads, and the one that it writes.
const tokensVersion = 1

// tokens is who may ask over TCP. Only hashes are kept: who reads the file cannot use it. A plain hash
// is enough, as a token is 256 random bits and cannot be guessed at any speed.
type tokens struct {
	Version int     `json:"version"`
	Tokens  []token `json:"tokens"`
}

type token struct {
	Name    string    `json:"name"` // "admin"
	Hash    string    `json:"hash"` // SHA-256 of the token, in hex
	Created time.Time `json:"created"`
}

// openTokens reads the tokens of a state directory. When there are none it makes the first one, for the
// administrator of this machine, and leaves it in the file TokenName.
func openTokens(dir string, now time.Time) (tokens, error) {
	path := filepath.Join(dir, tokensName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return firstToken(dir, now)
	}
	if err != nil {
		return tokens{}, fmt.Errorf("read the tokens: %w", err)
	}
	var t tokens
	if err := json.Unmarshal(text, &t); err != nil {
		return tokens{}, fmt.Errorf("%s is damaged (%w); restore it from a copy, or remove it to get a new token", path, err)
	}
	if t.Version < 1 || t.Version > tokensVersion {
		return tokens{}, fmt.Errorf("%s has format %d, this Spillway reads up to %d; use a newer one or another --dir: %w", path, t.Version, tokensVersion, spillway.ErrConflict)
	}
	return t, nil
}

// firstToken writes the token before its hash: a crash in between leaves a token that is not valid yet,
// and the next start makes another.
func firstToken(dir string, now time.Time) (tokens, error) {
	plain, t := newToken(now)
	if err := replaceFile(filepath.Join(dir, TokenName), []byte(plain+"\n")); err != nil {
		return tokens{}, err
	}
	text, err := t.file()
	if err != nil {
		return tokens{}, err
	}
	return t, replaceFile(filepath.Join(dir, tokensName), text)
}

// newToken makes a token of the administrator, and what is kept of it.
func newToken(now time.Time) (string, tokens) {
	plain := "spw_" + rand.Text() + rand.Text()
	return plain, tokens{Version: tokensVersion, Tokens: []token{{Name: "admin", Hash: hash(plain), Created: now.UTC()}}}
}

// file is what is written of tokens.
func (t tokens) file() ([]byte, error) {
	text, err := json.MarshalIndent(t, "", "  ")
	return append(text, '\n'), err
}

// NewToken makes a token for a server that has no state directory yet: what callers show, and what the server is to
// find as tokens.json in that directory.
func NewToken(now time.Time) (plain string, file []byte, err error) {
	plain, t := newToken(now)
	file, err = t.file()
	return plain, file, err
}

// owner gives the name of a token. It takes as long whichever token it is, or none.
func (t tokens) owner(presented string) (name string, ok bool) {
	h := hash(presented)
	for _, known := range t.Tokens {
		if subtle.ConstantTimeCompare([]byte(known.Hash), []byte(h)) == 1 {
			name, ok = known.Name, true
		}
	}
	return name, ok
}

func hash(plain string) string {
	sum := sha256.Sum256([]byte(plain))
	return hex.EncodeToString(sum[:])
}

// replaceFile writes a file that only its owner reads, so that a crash leaves the old one or the new.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}
