package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/spillway-dev/spillway"
)

// explain adds to an error of the cluster what was tried, what it means and what to do. nil stays nil.
func explain(what string, err error) error {
	var dial *net.OpError
	var unknown *meta.NoKindMatchError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case apierrors.IsForbidden(err) && !strings.Contains(err.Error(), " cannot "): // of a right that lacks it is: User X cannot patch resource Y
		return fmt.Errorf("%s: a quota or a policy of the cluster is against it: %w: %w; nobody's rights change that, but who looks after the namespace may", what, spillway.ErrDenied, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: %w: %w; give the server this right: spillway kube install", what, spillway.ErrDenied, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: the cluster does not know who asks: %w: %w; its credentials may have expired", what, spillway.ErrDenied, err)
	case apierrors.IsConflict(err):
		return fmt.Errorf("%s: %w: %w", what, spillway.ErrStale, err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return fmt.Errorf("%s: the API server refuses it: %w: %w", what, spillway.ErrInvalid, err)
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: %w: %w; install what defines it: spillway kube install, or the Gateway API", what, spillway.ErrUnavailable, err)
	case errors.As(err, &dial), apierrors.IsServiceUnavailable(err), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), apierrors.IsTooManyRequests(err), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: the API server does not answer: %w: %w", what, spillway.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// sentences are the errors that were joined in one, on a line, each once.
func sentences(err error) string {
	var all []string
	for line := range strings.SplitSeq(spillway.Text(err), "\n") {
		if !slices.Contains(all, line) {
			all = append(all, line)
		}
	}
	return strings.Join(all, "; ")
}
