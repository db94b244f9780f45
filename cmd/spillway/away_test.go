package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// cues is a writer that calls a function once for each text that it waits for, in their order.
type cues struct {
	text  strings.Builder
	wants []string
	then  []func()
}

func (c *cues) Write(p []byte) (int, error) {
	c.text.Write(p)
	for len(c.wants) > 0 && strings.Contains(c.text.String(), c.wants[0]) {
		then := c.then[0]
		c.wants, c.then = c.wants[1:], c.then[1:]
		then()
	}
	return len(p), nil
}

func TestDeploy_OutlastsAServerThatIsReplaced(t *testing.T) {
	appDir(t, castleFile)
	dir := stateDir(t)
	stop := serveOn(t, dir, deploying(climbing()...))
	next := deploying()
	next.rounds = []round{serving()}
	next.events = make([]spillway.Event, 3) // what the one before it has told
	for i := range next.events {
		next.events[i].ID = int64(i + 1)
	}
	stderr := &cues{wants: []string{"step 1 of 4", "waiting for it"}, then: []func(){
		func() { stop() },
		func() { stop = serveOn(t, dir, next) },
	}}
	var stdout strings.Builder
	c := newCLI(strings.NewReader(""), &stdout, stderr, func(string) string { return "" })
	c.every, c.hush = time.Millisecond, time.Hour
	code := c.run(t.Context(), []string{"deploy", "--dir", dir})
	stop()
	if code != exitDone || !strings.Contains(stdout.String(), "release 8 of castle serves everybody") {
		t.Errorf("exit code %d\n%s%s", code, &stdout, &stderr.text)
	}
}

func TestDeploy_GivesUpOnAServerThatStaysAway(t *testing.T) {
	appDir(t, castleFile)
	dir := stateDir(t)
	stop := serveOn(t, dir, deploying(climbing()...))
	stderr := &cues{wants: []string{"step 1 of 4"}, then: []func(){func() { stop() }}}
	c := newCLI(strings.NewReader(""), io.Discard, stderr, func(string) string { return "" })
	c.every, c.hush, c.patience = time.Millisecond, time.Hour, 50*time.Millisecond
	code := c.run(t.Context(), []string{"deploy", "--dir", dir})
	if code != exitFailed || !strings.Contains(stderr.text.String(), "the server has been away for 0s") {
		t.Errorf("exit code %d\n%s", code, &stderr.text)
	}
}
