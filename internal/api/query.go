package api

import (
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// production is the environment that a reference without one means.
const production = "production"

// stable is the track that a deploy without one is to.
const stable = "stable"

const (
	maxApp  = 40 // characters of an app's name
	maxEnv  = 40
	maxNote = 1000
)

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// parseRef reads "castle" or "castle@staging"; "castle@production" is "castle".
func parseRef(text string) (spillway.Ref, error) {
	app, env, named := strings.Cut(text, "@")
	switch {
	case !label.MatchString(app) || len(app) > maxApp:
		return "", fmt.Errorf("%q is not an app: a name like castle or castle@staging is lower-case letters, digits and dashes, at most %d: %w", text, maxApp, spillway.ErrInvalid)
	case named && (!label.MatchString(env) || len(env) > maxEnv):
		return "", fmt.Errorf("%q names no environment after the @; write castle@staging: %w", text, spillway.ErrInvalid)
	case env == production:
		return spillway.Ref(app), nil
	}
	return spillway.Ref(text), nil
}

// query reads the parameters of a request and collects every mistake in them.
type query struct {
	values   url.Values
	mistakes spillway.FieldErrors
}

// parseQuery reads the parameters of a request. Those that the route does not know, and those given
// twice, are mistakes: a misspelt follow would otherwise be a silent surprise.
func parseQuery(raw string, known []param) query {
	values, err := url.ParseQuery(raw)
	q := query{values: values}
	if err != nil {
		q.mistake("", "cannot be read: "+err.Error(), "escape special characters as %XX")
	}
	var names []string
	for _, p := range known {
		names = append(names, p.name)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(names, name) {
			q.mistake(name, "is no parameter here", "there are: "+strings.Join(names, ", "))
		} else if len(values[name]) > 1 {
			q.mistake(name, "is given more than once", "")
		}
	}
	return q
}

func (q *query) mistake(name, problem, hint string) {
	q.mistakes = append(q.mistakes, spillway.FieldError{Path: "?" + name, Problem: problem, Hint: hint})
}

// err is every mistake found so far, or nil.
func (q *query) err() error {
	if len(q.mistakes) == 0 {
		return nil
	}
	return q.mistakes
}

func (q *query) text(name string) string { return q.values.Get(name) }

// number reads a number from 0; absent is 0.
func (q *query) number(name string) int {
	text := q.values.Get(name)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		q.mistake(name, strconv.Quote(text)+" is not a number from 0", "")
		return 0
	}
	return n
}

// time reads a time of RFC 3339; absent is zero.
func (q *query) time(name string) time.Time {
	text := q.values.Get(name)
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		q.mistake(name, strconv.Quote(text)+" is not a time", "write it like 2026-11-22T03:00:00Z")
	}
	return at
}

// flag reads 1, true, 0 or false; absent is false.
func (q *query) flag(name string) bool {
	text := q.values.Get(name)
	if text == "" {
		return false
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		q.mistake(name, strconv.Quote(text)+" is neither true nor false", "write 1 or 0")
	}
	return v
}

// deploy reads the parameters of a deploy and of a plan.
func (q *query) deploy() DeployRequest {
	r := DeployRequest{
		File:      q.text("file"),
		Env:       q.text("env"),
		Strategy:  spillway.Strategy(q.text("strategy")),
		IfRelease: q.number("if_release"),
		Commit:    q.text("commit"),
		Dirty:     q.flag("dirty"),
		Note:      q.text("note"),
		Track:     q.text("track"),
		NotBefore: q.time("not_before"),
		Force:     q.flag("force"),
		App:       q.text("app"),
		From:      q.text("from"),
		Release:   q.number("release"),
	}
	if r.File == "" {
		r.File = "spillway.yaml"
	}
	if !fs.ValidPath(r.File) || r.File == "." {
		q.mistake("file", strconv.Quote(r.File)+" is not a path inside the source", "write it like deploy/spillway.yaml")
	}
	if r.Env == production {
		r.Env = ""
	}
	q.label("env", r.Env, "an environment", "staging")
	q.label("from", r.From, "an environment", "staging")
	q.label("track", r.Track, "a track", "canary")
	q.label("app", r.App, "an app", "castle")
	if r.Track == stable {
		r.Track = ""
	}
	switch {
	case r.From != "" && r.App == "":
		q.mistake("app", "is missing", "say whose release is taken over from the environment")
	case r.From == "" && (r.App != "" || r.Release != 0):
		q.mistake("from", "is missing", "app and release say what is taken over from an environment")
	}
	if r.Strategy != "" && !slices.Contains(spillway.Strategies, r.Strategy) {
		q.mistake("strategy", strconv.Quote(string(r.Strategy))+" is not a strategy", "there are: "+join(spillway.Strategies))
	}
	if len(r.Commit) > 64 || strings.Trim(r.Commit, "0123456789abcdef") != "" {
		q.mistake("commit", "is not the full hash of a commit", "")
	}
	if len(r.Note) > maxNote {
		q.mistake("note", fmt.Sprintf("has %d bytes", len(r.Note)), fmt.Sprintf("at most %d", maxNote))
	}
	return r
}

// label checks that a parameter that is there is a name; what says of what.
func (q *query) label(name, value, what, example string) {
	if value != "" && (!label.MatchString(value) || len(value) > maxEnv) {
		q.mistake(name, strconv.Quote(value)+" is not the name of "+what, "lower-case letters, digits and dashes, like "+example)
	}
}

// events reads the parameters of the history.
func (q *query) events() spillway.EventQuery {
	return spillway.EventQuery{Since: int64(q.number("since")), Tail: q.number("tail"), Limit: q.number("limit")}
}

// logs reads the parameters of the log.
func (q *query) logs() spillway.LogQuery {
	return spillway.LogQuery{
		Service: q.text("service"), Replica: q.text("replica"), Release: q.number("release"),
		Lines: q.number("lines"), Follow: q.flag("follow"),
	}
}

// verbs lists what can be asked of an app, in the order of the documentation.
func verbs() []spillway.Verb {
	return []spillway.Verb{
		spillway.VerbDeploy, spillway.VerbPromote, spillway.VerbPause, spillway.VerbResume, spillway.VerbAbort,
		spillway.VerbRollback, spillway.VerbCancel, spillway.VerbScale, spillway.VerbRestart, spillway.VerbDestroy,
	}
}

// checkIntent finds what is wrong with an intent whatever the app is like; the engine checks the rest.
func checkIntent(i spillway.Intent) error {
	var mistakes spillway.FieldErrors
	mistake := func(path, problem, hint string) {
		mistakes = append(mistakes, spillway.FieldError{Path: path, Problem: problem, Hint: hint})
	}
	if !slices.Contains(verbs(), i.Verb) {
		mistake("verb", strconv.Quote(string(i.Verb))+" is not a verb", "there are: "+join(verbs()))
	}
	if i.Release < 0 {
		mistake("release", "is below 0", "")
	}
	if i.Verb == spillway.VerbDeploy && i.Release == 0 {
		mistake("release", "is missing", "say which release to deploy; new source goes to POST /v1/deploy")
	}
	if i.Replicas < 0 {
		mistake("replicas", "is below 0", "")
	}
	if i.Verb == spillway.VerbScale && i.Service == "" {
		mistake("service", "is missing", "say which service to scale")
	}
	if i.Strategy != "" && !slices.Contains(spillway.Strategies, i.Strategy) {
		mistake("strategy", strconv.Quote(string(i.Strategy))+" is not a strategy", "there are: "+join(spillway.Strategies))
	}
	if i.Track != "" && (!label.MatchString(i.Track) || len(i.Track) > maxEnv) {
		mistake("track", strconv.Quote(i.Track)+" is not the name of a track", "lower-case letters, digits and dashes, like canary")
	}
	if len(mistakes) == 0 {
		return nil // not the empty list, which would be an error
	}
	return mistakes
}

func join[S ~string](words []S) string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return strings.Join(list, ", ")
}
