package counts_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway/internal/kube/counts"
)

func TestSources_SayWhoDoesNotAnswer(t *testing.T) {
	dead, w := freeAddress(t), newWorld(t, 4)
	w.gateways[0].answer("1", "castle-www-4", 200, 1)
	w.gateways[2].instead(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	w.gateways[3].instead(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	var all []counts.Instance
	for _, g := range w.gateways {
		all = append(all, counts.Instance{URL: g.URL + "/metrics"})
	}
	all = append(all, counts.Instance{URL: "http://user:secret@gateway.test/metrics", Address: dead})
	j := counts.New(counts.Config{Flavour: counts.Traefik, Instances: func() ([]counts.Instance, string) { return all, "" }})
	got := map[string]counts.Source{}
	for _, s := range j.Sources(t.Context()) {
		got[s.URL] = s
	}
	for url, want := range map[string]counts.Source{
		all[0].URL: {Counts: true}, all[1].URL: {}, all[2].URL: {Problem: "404"}, all[3].URL: {Problem: "no metrics"},
		"http://user:xxxxx@gateway.test/metrics (" + dead + ")": {Problem: "connection refused"},
	} {
		s, ok := got[url]
		if !ok || s.Counts != want.Counts || !strings.Contains(s.Problem, want.Problem) || (s.Problem == "") != (want.Problem == "") {
			t.Errorf("%s: %+v, want %+v", url, s, want)
		}
	}
}

func TestSources_AsksAPrometheus(t *testing.T) {
	answer := `{"status":"success","data":{"result":[]}}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
	defer server.Close()
	j := counts.New(counts.Config{Flavour: counts.Traefik, Prometheus: server.URL})
	if got := j.Sources(t.Context()); len(got) != 1 || got[0] != (counts.Source{URL: server.URL, Metric: "traefik_service_requests_total"}) {
		t.Errorf("one that has nothing of the gateway: %+v", got)
	}
	answer = `{"status":"success","data":{"result":[{"metric":{},"value":[1,"3"]}]}}`
	if got := j.Sources(t.Context()); !got[0].Counts || got[0].Problem != "" {
		t.Errorf("one that has: %+v", got)
	}
	server.Close()
	if got := j.Sources(t.Context()); !strings.Contains(got[0].Problem, "refused") {
		t.Errorf("one that is gone: %+v", got)
	}
}
