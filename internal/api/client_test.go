package api_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// carrier is a way to a server that ends as a test says.
type carrier func() (*http.Response, error)

func (c carrier) RoundTrip(*http.Request) (*http.Response, error) { return c() }

// A server that was not reached before went nowhere, and who may not ask for it is told that, and nothing else.
func TestClient_SaysThatAServerWentAwayOnlyOfOneThatWasThere(t *testing.T) {
	missing := fmt.Errorf("there is no Spillway server in namespace shop: %w", spillway.ErrUnavailable)
	denied := fmt.Errorf("read the Secret: you may not: %w", spillway.ErrDenied)
	broken := errors.New("the line is cut")
	var failed error
	client := api.NewClientOver(carrier(func() (*http.Response, error) {
		if failed != nil {
			return nil, failed
		}
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("{}"))}, nil
	}), "namespace shop")
	tells := func(when string, kind error, want string) {
		t.Helper()
		if _, err := client.Info(t.Context()); !errors.Is(err, kind) || err.Error() != want {
			t.Errorf("%s: %v, want %s", when, err, want)
		}
	}
	failed = missing
	tells("none is there", spillway.ErrUnavailable, missing.Error())
	failed = denied
	tells("without the right", spillway.ErrDenied, denied.Error())
	if _, err := client.Info(t.Context()); errors.Is(err, spillway.ErrUnavailable) {
		t.Errorf("asking again would help with %v", err)
	}
	failed = broken
	tells("never reached", spillway.ErrUnavailable, "the Spillway server at namespace shop cannot be reached: the line is cut: unavailable")
	failed = io.ErrUnexpectedEOF
	if _, err := client.Ask(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbAbort}); !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "may be done all the same") {
		t.Errorf("whether it was done is not known: %v", err)
	}
	failed = nil
	if _, err := client.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	failed = broken
	tells("reached before", spillway.ErrUnavailable, "the Spillway server at namespace shop went away: the line is cut: unavailable")
}
