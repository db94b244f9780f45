package spillway_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestText_HasNoSentinels(t *testing.T) {
	plain := errors.New("pods is forbidden")
	conflict := fmt.Errorf("host a belongs to app b: %w", spillway.ErrConflict)
	for want, err := range map[string]error{
		"pods is forbidden":                    plain,
		"host a belongs to app b":              conflict,
		"look for pods: pods is forbidden":     fmt.Errorf("look for pods: %w: %w", spillway.ErrDenied, plain),
		"host a belongs to app b\nread a file": errors.Join(conflict, fmt.Errorf("read a file: %w", spillway.ErrInvalid)),
		"two kinds":                            fmt.Errorf("two kinds: %w: %w", spillway.ErrConflict, spillway.ErrUnavailable),
		"its text ends so: conflict":           errors.New("its text ends so: conflict"), // and it is no such error
	} {
		if got := spillway.Text(err); got != want {
			t.Errorf("%q is told as %q, want %q", err, got, want)
		}
	}
	if !errors.Is(conflict, spillway.ErrConflict) {
		t.Error("the error itself has lost its kind")
	}
}
