package main

import (
	"strings"
	"testing"
)

func TestCheckJudge_SaysThatNobodyIsJudged(t *testing.T) {
	for name, c := range map[string]struct {
		options     clusterOptions
		state, says string
	}{
		"nobody told it":    {clusterOptions{gateway: "edge/public"}, "warn", "no release is judged"},
		"metrics":           {clusterOptions{gateway: "edge/public", metrics: []string{"http://t:9100/metrics"}}, "ok", "http://t:9100/metrics"},
		"a Prometheus":      {clusterOptions{gateway: "edge/public", prometheus: "http://p:9090"}, "ok", "http://p:9090"},
		"without a gateway": {clusterOptions{}, "ok", "a person judges"},
	} {
		got := c.options.checkJudge()
		if got.State != c.state || !strings.Contains(got.Text, c.says) || (got.State == "warn") != strings.Contains(got.Remedy, "--gateway-metrics URL") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
