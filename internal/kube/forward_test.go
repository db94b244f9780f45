package kube

import (
	"errors"
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestNoForward_SaysThatTheServerIsNotThere(t *testing.T) {
	const absent = "the Spillway server in pod spillway-5d-a is starting, or is gone; try again"
	for text, want := range map[string]string{
		`error forwarding port 7300 to pod 0a1b, uid : failed to execute portforward in network namespace "/var/run/netns/cni-1": failed to connect to localhost:7300 inside namespace "0a1b", IPv4: dial tcp4 127.0.0.1:7300: connect: connection refused`: absent,
		`error forwarding port 7300 to pod 0a1b, uid : failed to find sandbox "0a1b" in store: not found`: absent,
		"unable to do port forwarding: socat not found":                                                   "pod spillway-5d-a: unable to do port forwarding: socat not found",
	} {
		if err := error(noForward{"spillway-5d-a", text}); err.Error() != want || !errors.Is(err, spillway.ErrUnavailable) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
