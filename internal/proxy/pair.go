package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// PairError is why a certificate and its key in files cannot be used.
type PairError struct {
	File   string // of the two, the one to mend
	Why    string // "is empty"
	Remedy string // what to do; afterwards the files are read again within a second, by themselves
}

// Error has all of it but the remedy.
func (e *PairError) Error() string { return e.File + " " + e.Why }

// again ends the remedy of files that are served.
const again = "; both files are read again within a second"

// Before is the remedy for files that are not served yet: nobody reads them again by himself.
func (e *PairError) Before() string { return strings.TrimSuffix(e.Remedy, again) }

// ReadPair reads a certificate and its key from files. The error is a *PairError. That a certificate expired is none:
// see Stale.
func ReadPair(files spillway.TLS) (*tls.Certificate, error) {
	certificate, err := readPEM(files.Cert, "cert", "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	key, err := readPEM(files.Key, "key", "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	pair, failed := tls.X509KeyPair(certificate, key)
	switch {
	case failed == nil:
		return &pair, nil
	case strings.Contains(failed.Error(), "does not match"):
		return nil, &PairError{files.Key, "is not the key of the certificate " + files.Cert, "put the key there that this certificate was asked for with" + again}
	case strings.Contains(failed.Error(), "private key"):
		return nil, &PairError{files.Key, "holds a key that cannot be used: " + strings.TrimPrefix(failed.Error(), "tls: "), "write it as PEM without a passphrase: openssl pkey -in " + files.Key + again}
	}
	return nil, &PairError{files.Cert, "holds a certificate that cannot be used: " + strings.TrimPrefix(failed.Error(), "tls: "), "put a good one in its place" + again}
}

// Stale says of a certificate in a file why clients refuse it at that time, and what to do about it; "" = they do not.
func Stale(pair *tls.Certificate, now time.Time) (why, remedy string) {
	switch {
	case now.After(pair.Leaf.NotAfter):
		return "expired at " + pair.Leaf.NotAfter.UTC().Format(time.RFC3339), "put a renewed one in its place, with its key" + again
	case now.Before(pair.Leaf.NotBefore):
		return "is good only from " + pair.Leaf.NotBefore.UTC().Format(time.RFC3339) + " on", "see that the clock of this machine is right, or put one in its place that is good now" + again
	}
	return "", ""
}

// readPEM reads a file that has to hold a block whose type ends with a text. key is what the app file calls the file.
func readPEM(path, key, kind string) ([]byte, error) {
	if _, err := stampOf(path); err != nil {
		return nil, unread(path, key, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, unread(path, key, cause(err))
	}
	const whole = "write it whole: to a file beside it, which is then renamed"
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, &PairError{path, "is empty", whole + again}
	}
	other := ""
	for rest := text; ; {
		var block *pem.Block
		switch block, rest = pem.Decode(rest); {
		case block == nil && other != "":
			return nil, &PairError{path, "holds a " + other + " and no " + kind, "let cert in tls name the certificate, and key the key"}
		case block == nil && bytes.Contains(text, []byte("-----BEGIN")):
			return nil, &PairError{path, "is cut off: it begins with PEM and has no end", whole + again}
		case block == nil:
			return nil, &PairError{path, "holds no PEM", "put the " + strings.ToLower(kind) + " there as PEM (-----BEGIN …)" + again}
		case strings.HasSuffix(block.Type, kind):
			return text, nil
		case !strings.HasSuffix(block.Type, "PARAMETERS"): // as openssl puts them before a key
			other = block.Type
		}
	}
}

// unread is the error for a file that cannot be read.
func unread(path, key string, err error) *PairError {
	e := &PairError{path, "cannot be read: " + err.Error(), "put it there, or mend " + key + " in tls" + again}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Remedy = fmt.Sprintf("let the user %d, who runs the server, read it and enter its directory%s", os.Geteuid(), again)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		e.Remedy = MoreFiles
	}
	return e
}

// cause is an error without the operation and the path.
func cause(err error) error {
	var of *os.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// MoreFiles is the remedy where there are too few file descriptors. The proxy has the limit of the server that
// started it.
const MoreFiles = "raise the limit of open files of the server: LimitNOFILE=65536 in its systemd unit, or ulimit -n 65536 before its start; a proxy that runs on gets it with a SIGHUP to the server"
