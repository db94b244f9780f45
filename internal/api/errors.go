package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spillway-dev/spillway"
)

// kinds is the one table from the sentinels to the wire and to the shell. An error that wraps two of
// them is of the kind that comes first.
var kinds = [...]struct {
	sentinel error
	status   int // of HTTP
	exit     int // code of the process
}{
	{spillway.ErrInvalid, http.StatusBadRequest, 2},
	{spillway.ErrDenied, http.StatusForbidden, 5},
	{spillway.ErrNotFound, http.StatusNotFound, 1},
	{spillway.ErrStale, http.StatusConflict, 1},
	{spillway.ErrConflict, http.StatusConflict, 1},
	{spillway.ErrUnavailable, http.StatusServiceUnavailable, 1},
}

// kindInternal is the kind of an error that is none of the sentinels: a fault of ours.
const kindInternal = "internal"

// ExitCode gives the code with which a command ends because of an error: 0 for none, 2 for a mistake of
// the user, 5 for something not allowed, 1 for everything else. Outcomes of a rollout (3, 4) are not
// errors and not known here.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	for _, k := range kinds {
		if errors.Is(err, k.sentinel) {
			return k.exit
		}
	}
	return 1
}

// wire makes an error ready for the wire, and gives its HTTP status.
func wire(err error) (Error, int) {
	if errors.Is(err, context.Canceled) { // our caller is gone, or we are going
		return Error{Kind: spillway.ErrUnavailable.Error(), Text: "the server is stopping; ask again when it is back"}, http.StatusServiceUnavailable
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return Error{Kind: spillway.ErrInvalid.Error(), Text: fmt.Sprintf("the body is larger than %s", spillway.Bytes(large.Limit))}, http.StatusRequestEntityTooLarge
	}
	e, status := Error{Kind: kindInternal, Text: err.Error()}, http.StatusInternalServerError
	for _, k := range kinds {
		if errors.Is(err, k.sentinel) {
			e.Kind, status = k.sentinel.Error(), k.status
			break
		}
	}
	var fields spillway.FieldErrors
	if errors.As(err, &fields) {
		e.Fields = fields
	}
	return e, status
}

// Error gives the text as the server wrote it.
func (e *Error) Error() string { return e.Text }

// Unwrap gives the sentinel and the field errors that the server's error had, so that errors.Is and
// errors.As say the same on both sides of the wire.
func (e *Error) Unwrap() []error {
	var causes []error
	for _, k := range kinds {
		if k.sentinel.Error() == e.Kind {
			causes = append(causes, k.sentinel)
		}
	}
	if len(e.Fields) > 0 {
		causes = append(causes, spillway.FieldErrors(e.Fields))
	}
	return causes
}
