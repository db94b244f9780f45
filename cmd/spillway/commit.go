package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// commitForm is how a commit is written: 7 to 40 digits of its hash.
var commitForm = regexp.MustCompile(`^[0-9a-f]{7,40}$`)

// namesCommit reports whether an argument means a commit: a directory of that name here wins.
func namesCommit(what string) bool {
	if !commitForm.MatchString(what) {
		return false
	}
	info, err := os.Stat("./" + what)
	return err != nil || !info.IsDir()
}

// releaseOf finds the newest release that was made of exactly a commit.
func releaseOf(ctx context.Context, client *api.Client, app spillway.Ref, hash string) (int, error) {
	all, err := client.Releases(ctx, app)
	if err != nil {
		return 0, err
	}
	var clean, known []string
	dirty, found := 0, 0
	for _, r := range all { // newest first
		short := commit(r.Source)
		switch {
		case r.Source.Commit == "":
			continue
		case !strings.HasPrefix(r.Source.Commit, hash):
		case r.Source.Dirty:
			dirty = max(dirty, r.Number)
		case !slices.Contains(clean, r.Source.Commit):
			clean, found = append(clean, r.Source.Commit), max(found, r.Number)
		}
		if !r.Source.Dirty && !slices.Contains(known, short) {
			known = append(known, short)
		}
	}
	switch {
	case len(clean) > 1:
		return 0, usage("%s begins more than one commit: %s; write more of it", hash, strings.Join(clean, ", "))
	case found != 0:
		return found, nil
	case dirty != 0:
		return 0, fmt.Errorf("%s of %s is of commit %s with changes that were not committed; if that is what you want: spillway deploy %d", release(dirty), app, hash, dirty)
	case len(known) == 0:
		return 0, fmt.Errorf("no release of %s is of a commit; there are: spillway releases", app)
	}
	return 0, fmt.Errorf("no release of %s is of commit %s; there are releases of: %s", app, hash, strings.Join(known, ", "))
}
