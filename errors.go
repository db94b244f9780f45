package spillway

import (
	"errors"
	"fmt"
	"strings"
)

// The sentinels that callers act on. One table in package api maps them to HTTP status and exit code.
var (
	// ErrNotFound: the app, release, service or replica named does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the request contradicts what is there (a host that another app owns, a release
	// number that moved on); asking again unchanged cannot help.
	ErrConflict = errors.New("conflict")
	// ErrInvalid: the request is malformed; its text says where and what to write instead.
	ErrInvalid = errors.New("invalid")
	// ErrDenied: the caller may not do this.
	ErrDenied = errors.New("not allowed")
	// ErrUnavailable: something needed is not there now (no server, no proxy); asking again may help.
	ErrUnavailable = errors.New("unavailable")
	// ErrStale: the write was based on a version that is no longer the newest; load and try again.
	ErrStale = errors.New("stale")
)

// Text is what an error says to people: without the sentinels in it, which reasons and exit codes tell. It has as many
// lines as the error. "look for pods: not allowed: pods is forbidden" is "look for pods: pods is forbidden".
func Text(err error) string {
	lines := strings.Split(strings.TrimRight(err.Error(), "\n"), "\n")
	for _, kind := range []error{ErrNotFound, ErrConflict, ErrInvalid, ErrDenied, ErrUnavailable, ErrStale} {
		if !errors.Is(err, kind) {
			continue
		}
		for i, line := range lines {
			lines[i] = strings.TrimSuffix(strings.ReplaceAll(line, ": "+kind.Error()+": ", ": "), ": "+kind.Error())
		}
	}
	return strings.Join(lines, "\n")
}

// FieldError is one mistake of a user in one place of a file.
type FieldError struct {
	File    string `json:"file,omitempty"`   // as the user named it; "" when the text did not come from a file
	Line    int    `json:"line,omitempty"`   // 1-based; 0 when unknown
	Column  int    `json:"column,omitempty"` // 1-based; 0 when unknown
	Path    string `json:"path,omitempty"`   // services.www.scale
	Problem string `json:"problem"`          // lower case, no full stop: "is not a number"
	Hint    string `json:"hint,omitempty"`   // what to write instead, or ""
}

// Error renders "spillway.yaml:4:5: services.www.scael: unknown key; did you mean scale?".
func (e FieldError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", e.Line, e.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Problem)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// FieldErrors is every mistake found in one text, in the order of the text. It is an ErrInvalid.
type FieldErrors []FieldError

// Error joins the mistakes, one a line.
func (es FieldErrors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Is makes errors.Is(err, ErrInvalid) true for a list of field errors.
func (es FieldErrors) Is(target error) bool { return target == ErrInvalid }
