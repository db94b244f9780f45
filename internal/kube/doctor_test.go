package kube

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
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
