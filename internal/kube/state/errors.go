package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// absent reports whether the object asked for is not there, and not its kind or its namespace.
func absent(err error) bool {
	d := details(err)
	return apierrors.IsNotFound(err) && d.Name != "" && d.Kind != "namespaces"
}

// details are those of an answer of the API server; the zero value for any other error.
func details(err error) metav1.StatusDetails {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		return *status.Status().Details
	}
	return metav1.StatusDetails{}
}

// explain turns the errors of the cluster into words and sentinels; every other error stays as it is. verb and
// resource are what was asked of the API server, as a role names them.
func (s *Store) explain(err error, verb, resource string) error {
	kind, _, _ := strings.Cut(resource, "/")
	switch d := details(err); {
	case early(err):
		return fmt.Errorf("the server has just begun to look at the cluster: %w: %w", err, spillway.ErrUnavailable)
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case apierrors.IsNotFound(err) && d.Kind == "namespaces":
		return fmt.Errorf("there is no namespace %s: %w", s.namespace, spillway.ErrUnavailable)
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err) && d.Name == "":
		return fmt.Errorf("the cluster does not know %s %s: run spillway kube install: %w", v1alpha1.GroupVersion, kindOf(kind), spillway.ErrUnavailable)
	case apierrors.HasStatusCause(err, "NamespaceTerminating"):
		return fmt.Errorf("namespace %s is being deleted: %w", s.namespace, spillway.ErrConflict)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("the server may not %s %s.%s in namespace %s; give its role that verb, as spillway kube install does (%w): %w", verb, resource, v1alpha1.Group, s.namespace, err, spillway.ErrDenied)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server does not know who the server is (%w): %w", err, spillway.ErrDenied)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return fmt.Errorf("the API server refuses it: %w: %w", err, spillway.ErrInvalid)
	case apierrors.IsRequestEntityTooLargeError(err), strings.Contains(err.Error(), "etcdserver: request is too large"):
		return fmt.Errorf("it is too large for the cluster: %w: %w", err, spillway.ErrInvalid)
	case away(err):
		return fmt.Errorf("the API server of the cluster does not answer: %w: %w", err, spillway.ErrUnavailable)
	}
	return err
}

// kindOf is the kind of a resource in the plural.
func kindOf(resource string) string {
	if resource == releases {
		return "Release"
	}
	return "App"
}

// early reports whether nothing can be read because the server has just started.
func early(err error) bool {
	_, not := errors.AsType[*cache.ErrCacheNotStarted](err)
	return not
}

// away reports whether an error is of the connection or of a server that is not able to answer now.
func away(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err)
}

// refused reports whether a write was certainly not done. Of every other error that is not known: the answer alone may be lost.
func refused(err error) bool {
	for _, sure := range []error{errPassed, spillway.ErrConflict, spillway.ErrInvalid, spillway.ErrDenied, spillway.ErrNotFound} {
		if errors.Is(err, sure) {
			return true
		}
	}
	return false
}

// noApp is ErrNotFound.
func noApp(app spillway.Ref) error {
	return fmt.Errorf("there is no app %s: %w", app, spillway.ErrNotFound)
}

// busy is ErrUnavailable: somebody else was faster each time.
func busy(app spillway.Ref) error {
	return fmt.Errorf("somebody else writes the App %s all the time: %w", v1alpha1.Name(app), spillway.ErrUnavailable)
}
