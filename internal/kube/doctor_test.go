package kube

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

func TestCheckClock_TellsWhichIsOff(t *testing.T) {
	var off time.Duration
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
	}))
	defer server.Close()
	for want, d := range map[string]time.Duration{"as the API server's": 0, "ahead": -time.Minute, "behind": time.Hour} {
		off = d
		c := checkClock(t.Context(), &rest.Config{Host: server.URL})
		if !strings.Contains(c.Text, want) || (c.State == "ok") != (d == 0) {
			t.Errorf("API server %v off: %+v, want %q", d, c, want)
		}
	}
	server.Close()
	if c := checkClock(t.Context(), &rest.Config{Host: server.URL}); c.State != "warn" {
		t.Errorf("an API server that does not answer: %+v", c)
	}
}

// Of Apps and Releases the server may do what its store does, which is tried on a real API server with these rights alone.
func TestRights_AreNoMoreThanTheStoreNeeds(t *testing.T) {
	for _, r := range Rights(Gateway{}) {
		i := slices.IndexFunc(state.Rules(), func(rule rbacv1.PolicyRule) bool {
			return slices.Contains(rule.Resources, r.Resource) && slices.Contains(rule.APIGroups, r.Group)
		})
		if r.Group == v1alpha1.Group && r.Resource != "apps/finalizers" && (i < 0 || !slices.Equal(r.Verbs, state.Rules()[i].Verbs)) {
			t.Errorf("the server may %q %s", r.Verbs, r.Resource)
		}
	}
}
