package oci

import (
	"net/http"
	"time"
)

// Hurry lowers how long a registry may take to answer.
func (r *Registry) Hurry(patience time.Duration) { r.patience = patience }

// Transport is what requests go through.
func (r *Registry) Transport() http.RoundTripper { return r.transport }
