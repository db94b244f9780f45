package main

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCallOf_NamesVerbAndResource(t *testing.T) {
	for _, c := range []struct{ method, url, format, want string }{
		{"GET", "/apis/apps/v1/namespaces/a/deployments?watch=true", "", "watch deployments"},
		{"GET", "/apis/apps/v1/namespaces/a/deployments", "", "list deployments"},
		{"GET", "/api/v1/namespaces/a/services/b", "", "get services"},
		{"GET", "/api/v1/namespaces/a", "", "get namespaces"},
		{"PATCH", "/apis/apps/v1/namespaces/a/deployments/b", "application/apply-patch+yaml", "apply deployments"},
		{"PATCH", "/apis/argoproj.io/v1alpha1/namespaces/a/rollouts/b/status", "application/merge-patch+json", "patch rollouts/status"},
		{"PUT", "/apis/spillway.dev/v1alpha1/namespaces/a/apps/b/status", "", "update apps/status"},
		{"POST", "/api/v1/namespaces/a/events", "", "create events"},
		{"GET", "/apis/apps/v1", "", "discover"},
		{"GET", "/openapi/v3", "", "discover"},
	} {
		r := httptest.NewRequest(c.method, c.url, strings.NewReader(""))
		r.Header.Set("Content-Type", c.format)
		if got := callOf(r); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.method, c.url, got, c.want)
		}
	}
	if n := writesOf(map[string]int{"get services": 3, "apply services": 2, "watch pods": 1, "create events": 1}); n != 3 {
		t.Errorf("%d writes, want 3", n)
	}
}
