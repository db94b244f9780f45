package oci

import (
	"errors"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Hurry lowers how long a registry may take to answer.
func (r *Registry) Hurry(patience time.Duration) { r.patience = patience }

// Transport is what requests go through.
func (r *Registry) Transport() http.RoundTripper { return r.transport }

// Pinned is how an image is written with a digest.
func (r *Registry) Pinned(image string) (string, error) {
	ref, err := r.parse(image)
	if err != nil {
		return "", err
	}
	return pinned(ref.Context(), v1.Hash{Algorithm: "sha256", Hex: "00"}), nil
}

// ExplainBesidePlain explains an error of a registry that was then asked without TLS, which is not allowed.
func (r *Registry) ExplainBesidePlain(first error, repository string) error {
	where, err := name.NewRepository(repository)
	if err != nil {
		return err
	}
	return r.explain(errors.Join(first, errPlain), "read it", where)
}
