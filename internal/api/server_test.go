package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func TestClient_ReachesEverythingOverSocketAndTCP(t *testing.T) {
	e := &engine{}
	e.add(3)
	e.logs = func(_ context.Context, q spillway.LogQuery, line func(spillway.LogLine) error) error {
		return line(spillway.LogLine{At: at, Replica: q.Replica, Stream: "stdout", Text: fmt.Sprintf("%s %d %d %t", q.Service, q.Release, q.Lines, q.Follow)})
	}
	server := start(t, e)
	for name, client := range map[string]*api.Client{"socket": server.socket(t), "tcp": server.tcp(t)} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			same(t, "info")(client.Info(ctx))(e.Info(ctx), nil)
			same(t, "apps")(client.Apps(ctx))([]spillway.Ref{castle}, nil) // gone went in the meantime
			same(t, "overviews")(client.Overviews(ctx))([]spillway.Overview{overview()}, nil)
			same(t, "overview")(client.Overview(ctx, castle))(overview(), nil)
			same(t, "replicas")(client.Replicas(ctx, castle))([]spillway.Replica{}, nil)
			same(t, "releases")(client.Releases(ctx, castle))(releases(), nil)
			same(t, "release")(client.Release(ctx, castle, 1))(releases()[1], nil)
			same(t, "events")(client.Events(ctx, castle, spillway.EventQuery{}))(e.events, nil)
			same(t, "newer events")(client.Events(ctx, castle, spillway.EventQuery{Since: 1, Limit: 1}))(e.events[1:2], nil)
			same(t, "newest events")(client.Events(ctx, castle, spillway.EventQuery{Tail: 1}))(e.events[2:], nil)
			same(t, "doctor")(client.Doctor(ctx))(e.Doctor(ctx), nil)
			var lines []spillway.LogLine
			check(t, client.Logs(ctx, castle, spillway.LogQuery{Service: "www", Replica: "www.1-1", Release: 1, Lines: 5}, func(l spillway.LogLine) error {
				lines = append(lines, l)
				return nil
			}))
			same(t, "logs")(lines, nil)([]spillway.LogLine{{At: at, Replica: "www.1-1", Stream: "stdout", Text: "www 1 5 false"}}, nil)
		})
	}
}

// same compares what a client got with what was there.
func same(t *testing.T, what string) func(got any, err error) func(want any, _ error) {
	return func(got any, err error) func(any, error) {
		return func(want any, _ error) {
			t.Helper()
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v\n got %+v\nwant %+v", what, err, got, want)
			}
		}
	}
}

func TestAsk_SaysWhoAskedAndWhen(t *testing.T) {
	e := &engine{}
	server := start(t, e)
	before := time.Now()
	intent := spillway.Intent{Verb: spillway.VerbScale, Service: "www", Replicas: 3, By: "somebody else", Seq: 99}
	for by, client := range map[string]*api.Client{fmt.Sprintf("uid %d", os.Getuid()): server.socket(t), "token admin": server.tcp(t)} {
		stored, err := client.Ask(t.Context(), castle, intent)
		check(t, err)
		if !strings.HasPrefix(stored.By, by) || stored.At.Before(before.Truncate(time.Second)) || stored.Seq > 2 || stored.Replicas != 3 {
			t.Errorf("stored %+v; want it by %s, now", stored, by)
		}
	}
}

func TestAsk_NamesEveryMistakeOfTheIntent(t *testing.T) {
	client := start(t, &engine{}).socket(t)
	_, err := client.Ask(t.Context(), castle, spillway.Intent{Verb: "promot", Release: -1, Replicas: -2, Strategy: "yolo"})
	var fields spillway.FieldErrors
	if !errors.Is(err, spillway.ErrInvalid) || !errors.As(err, &fields) || len(fields) != 4 || fields[0].Path != "verb" {
		t.Errorf("got %v (%d fields), want ErrInvalid with 4 fields, verb first", err, len(fields))
	}
	for _, intent := range []spillway.Intent{{Verb: spillway.VerbDeploy}, {Verb: spillway.VerbScale, Replicas: 2}} {
		if _, err := client.Ask(t.Context(), castle, intent); !errors.Is(err, spillway.ErrInvalid) {
			t.Errorf("%s without its object: %v, want ErrInvalid", intent.Verb, err)
		}
	}
}

func TestPlan_SendsEveryParameterAndTheSource(t *testing.T) {
	e := &engine{}
	want := api.DeployRequest{
		File: "deploy/spillway & co.yaml", Env: "staging", Strategy: spillway.Canary, IfRelease: 4,
		Commit: strings.Repeat("ab", 20), Dirty: true, Note: "fix: 100 % & more",
	}
	given := want
	given.Source, given.By = strings.NewReader("the source"), "somebody else"
	plan, err := start(t, e).tcp(t).Plan(t.Context(), given)
	check(t, err)
	want.By = "token admin"
	if plan.Worst != "the source" || !reflect.DeepEqual(e.plans, []api.DeployRequest{want}) {
		t.Errorf("got %q, %+v\nwant %+v", plan.Worst, e.plans, want)
	}
}

func TestClient_ErrorsAreTheSameOnBothSides(t *testing.T) {
	fields := spillway.FieldErrors{{File: "spillway.yaml", Line: 4, Column: 5, Path: "services.www.scael", Problem: "unknown key", Hint: "did you mean scale?"}}
	for _, tt := range []struct {
		err  error
		is   error
		exit int
	}{
		{fmt.Errorf("castle: %w", spillway.ErrNotFound), spillway.ErrNotFound, 1},
		{fmt.Errorf("host: %w", spillway.ErrConflict), spillway.ErrConflict, 1},
		{fmt.Errorf("disk full: %w", spillway.ErrUnavailable), spillway.ErrUnavailable, 1},
		{fmt.Errorf("save: %w", spillway.ErrStale), spillway.ErrStale, 1},
		{fmt.Errorf("token: %w", spillway.ErrDenied), spillway.ErrDenied, 5},
		{fmt.Errorf("bad: %w", spillway.ErrInvalid), spillway.ErrInvalid, 2},
		{fmt.Errorf("the file: %w", fields), spillway.ErrInvalid, 2},
		{errors.New("a fault of ours"), nil, 1},
	} {
		e := &engine{err: tt.err}
		client := start(t, e).socket(t)
		_, overview := client.Overview(t.Context(), castle)
		_, ask := client.Ask(t.Context(), castle, spillway.Intent{Verb: spillway.VerbPause})
		_, deploy := client.Deploy(t.Context(), api.DeployRequest{Source: strings.NewReader("")}, nil)
		_, plan := client.Plan(t.Context(), api.DeployRequest{Source: strings.NewReader("")})
		_, events := client.Events(t.Context(), castle, spillway.EventQuery{})
		follow := client.Follow(t.Context(), castle, 0, nil)
		for name, err := range map[string]error{
			"overview": overview, "ask": ask, "deploy": deploy, "plan": plan, "events": events, "follow": follow,
			"logs": client.Logs(t.Context(), castle, spillway.LogQuery{}, nil),
		} {
			if err == nil || err.Error() != tt.err.Error() || tt.is != nil && !errors.Is(err, tt.is) || api.ExitCode(err) != tt.exit {
				t.Errorf("%s: got %v (exit %d), want %v (exit %d)", name, err, api.ExitCode(err), tt.err, tt.exit)
			}
			var got, want spillway.FieldErrors
			if errors.As(tt.err, &want) && (!errors.As(err, &got) || !reflect.DeepEqual(got, want)) {
				t.Errorf("%s: fields %+v, want %+v", name, got, want)
			}
		}
	}
	if code := api.ExitCode(nil); code != 0 {
		t.Errorf("exit code of success is %d", code)
	}
}

func TestGuard_AdmitsOnlyWhoHasATokenAndComesFromHere(t *testing.T) {
	server := start(t, &engine{})
	_, port, err := net.SplitHostPort(server.address)
	check(t, err)
	good := "Bearer " + server.token(t)
	for _, tt := range []struct {
		name, host, origin, token string
		want                      int
	}{
		{"all right", "127.0.0.1:" + port, "", good, 200},
		{"localhost", "LocalHost:" + port, "", good, 200},
		{"through a tunnel", "localhost:9999", "", good, 200},
		{"without a port", "localhost", "", good, 200},
		{"IPv6", "[::1]:" + port, "", good, 200},
		{"IPv6 without a port", "[::1]", "", good, 200},
		{"a configured name", "deploy.example.com", "", good, 200},
		{"scheme in lower case", "localhost", "", strings.Replace(good, "Bearer", "bearer", 1), 200},
		{"own page", "localhost:" + port, "http://localhost:" + port, good, 200},
		{"no token", "localhost", "", "", 401},
		{"another token", "localhost", "", good + "x", 401},
		{"part of the token", "localhost", "", good[:len(good)-1], 401},
		{"an empty token", "localhost", "", "Bearer ", 401},
		{"another scheme", "localhost", "", strings.Replace(good, "Bearer", "Basic", 1), 401},
		{"a name that rebinds", "evil.example", "", good, 403},
		{"a name that ends like ours", "evil-localhost", "", good, 403},
		{"another address", "10.0.0.1:" + port, "", good, 403},
		{"another page", "localhost:" + port, "http://evil.example", good, 403},
		{"a page on another port", "localhost:" + port, "http://localhost:1", good, 403},
		{"a page of no origin", "localhost:" + port, "null", good, 403},
		{"a page over another scheme", "localhost:" + port, "https://localhost:" + port, good, 403},
		{"a page of the rebound name", "evil.example", "http://evil.example", good, 403},
		{"everything wrong", "evil.example", "http://evil.example", "", 403},
	} {
		for _, path := range []string{"/v1/info", "/v1/openapi.json", "/nothing"} {
			answer := request(t, server, "GET", path, tt.host, tt.origin, tt.token, nil)
			want := tt.want
			if want == 200 && path == "/nothing" {
				want = 404
			}
			if answer.status != want {
				t.Errorf("%s: %s answers %d, want %d: %s", tt.name, path, answer.status, want, answer.body)
			}
			if (answer.header.Get("WWW-Authenticate") != "") != (want == 401) {
				t.Errorf("%s: WWW-Authenticate is %q", tt.name, answer.header.Get("WWW-Authenticate"))
			}
			if want >= 400 && !strings.Contains(answer.body, `{"error":{"kind":"not `) {
				t.Errorf("%s: %s", tt.name, answer.body)
			}
		}
		if health := request(t, server, "GET", "/healthz", tt.host, tt.origin, tt.token, nil); health.status != 200 || health.body != "ok\n" {
			t.Errorf("%s: /healthz answers %d %q", tt.name, health.status, health.body)
		}
	}
	if log := server.log.String(); strings.Contains(log, server.token(t)) {
		t.Error("the token is in the log")
	}
}

func TestGuard_TheErrorNamesTheNextStep(t *testing.T) {
	server := start(t, &engine{})
	client, err := api.NewClient("http://"+server.address, "wrong")
	check(t, err)
	_, err = client.Info(t.Context())
	if !errors.Is(err, spillway.ErrDenied) || !strings.Contains(err.Error(), "state directory") || api.ExitCode(err) != 5 {
		t.Errorf("got %v, want ErrDenied that says where the token is", err)
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// request sends one request over TCP exactly as told.
func request(t *testing.T, server running, method, target, host, origin, token string, body io.Reader) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+server.address+target, body)
	check(t, err)
	r.Host = host
	for name, value := range map[string]string{"Origin": origin, "Authorization": token} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	a, err := http.DefaultClient.Do(r)
	check(t, err)
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	check(t, err)
	return answer{a.StatusCode, a.Header, string(text)}
}

// get asks as an admitted caller.
func get(t *testing.T, server running, method, target, body string) answer {
	t.Helper()
	return request(t, server, method, target, "localhost", "", "Bearer "+server.token(t), strings.NewReader(body))
}

func TestServer_RefusesWhatItDoesNotKnow(t *testing.T) {
	server := start(t, &engine{})
	for _, tt := range []struct {
		method, target, body string
		status               int
		says                 string
	}{
		{"GET", "/v1/nothing", "", 404, "there is no GET /v1/nothing"},
		{"DELETE", "/v1/apps/castle", "", 404, "there is no DELETE"},
		{"GET", "/v1/apps/Castle", "", 400, "is not an app"},
		{"GET", "/v1/apps/castle@", "", 400, "names no environment"},
		{"GET", "/v1/apps/a@b@c", "", 400, "names no environment"},
		{"GET", "/v1/apps/..%2fetc", "", 400, "is not an app"},
		{"GET", "/v1/apps/shop", "", 404, "not found"},
		{"GET", "/v1/apps/castle@staging/releases/9", "", 404, "castle@staging has no release 9"},
		{"GET", "/v1/apps/castle@staging/releases/x", "", 400, "not the number of a release"},
		{"GET", "/v1/apps/castle@staging/events?follw=1", "", 400, "?follw: is no parameter here; there are: since"},
		{"GET", "/v1/apps/castle@staging/events?since=-1", "", 400, "not a number from 0"},
		{"GET", "/v1/apps/castle@staging/events?since=1&since=2", "", 400, "more than once"},
		{"GET", "/v1/apps/castle@staging/events?since=%zz", "", 400, "cannot be read"},
		{"GET", "/v1/apps/castle@staging/logs?follow=maybe", "", 400, "neither true nor false"},
		{"POST", "/v1/plan?file=../x&env=A&strategy=x&commit=xyz&if_release=x", "", 400, "?file"},
		{"POST", "/v1/plan?note=" + strings.Repeat("x", 1001), "", 400, "has 1001 bytes"},
		{"POST", "/v1/apps/castle@staging/intents", `{"verb":"pause","colour":1}`, 400, "colour"},
		{"POST", "/v1/apps/castle@staging/intents", `{`, 400, "is not an intent"},
		{"POST", "/v1/apps/castle@staging/intents", `{"verb":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "larger than 1Mi"},
	} {
		a := get(t, server, tt.method, tt.target, tt.body)
		var e struct{ Error api.Error }
		if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.status != tt.status || !strings.Contains(e.Error.Text, tt.says) {
			t.Errorf("%s %.80s answers %d %.300s; want %d saying %q", tt.method, tt.target, a.status, a.body, tt.status, tt.says)
		}
		if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: headers %v", tt.method, tt.target, a.header)
		}
	}
}

func TestServer_TakesProductionForTheAppItself(t *testing.T) {
	a := get(t, start(t, &engine{}), "GET", "/v1/apps/castle@production", "")
	if a.status != 404 { // the fake knows castle@staging only; the name was read
		t.Errorf("answers %d %s", a.status, a.body)
	}
}

func TestServer_APanicIsTheFailureOfOneRequest(t *testing.T) {
	e := &engine{deploy: func(_ context.Context, r api.DeployRequest, log func(string)) (api.DeployResult, error) {
		if r.Note == "late" {
			log("building")
		}
		panic("broken invariant")
	}}
	server := start(t, e)
	client := server.socket(t)
	_, early := client.Deploy(t.Context(), api.DeployRequest{Source: strings.NewReader("")}, nil)
	if early == nil || !strings.Contains(early.Error(), "internal error") {
		t.Errorf("a panic before the first line: %v", early)
	}
	_, late := client.Deploy(t.Context(), api.DeployRequest{Source: strings.NewReader(""), Note: "late"}, func(string) {})
	if !errors.Is(late, spillway.ErrUnavailable) {
		t.Errorf("a panic after the first line: %v, want ErrUnavailable", late)
	}
	if log := server.log.String(); !strings.Contains(log, "broken invariant") || !strings.Contains(log, "engine_test.go") && !strings.Contains(log, "server_test.go") {
		t.Errorf("the log does not say what happened where: %s", log)
	}
	_, err := client.Info(t.Context())
	check(t, err)
}

func TestListen_SocketIsPrivateAndStaleOnesAreReplaced(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, api.SocketName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	l.SetUnlinkOnClose(false) // as if the process had been killed
	check(t, l.Close())
	server := startIn(t, &engine{}, dir)
	info, err := os.Lstat(path)
	check(t, err)
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket with 0600", info.Mode())
	}
	err = api.NewServer(api.Config{Engine: &engine{}, Dir: dir}).Listen(t.Context())
	if !errors.Is(err, spillway.ErrConflict) || !strings.Contains(err.Error(), "answers at "+path) {
		t.Errorf("a second server: %v, want ErrConflict", err)
	}
	_, err = server.socket(t).Info(t.Context())
	check(t, err)
}

func TestListen_SaysWhatIsInTheWay(t *testing.T) {
	dir := shortDir(t)
	check(t, os.WriteFile(filepath.Join(dir, api.SocketName), []byte("precious"), 0o600))
	occupied := start(t, &engine{})
	for name, tt := range map[string]struct {
		config api.Config
		is     error
		says   string
	}{
		"a file":      {api.Config{Dir: dir}, spillway.ErrConflict, "not a socket"},
		"a long path": {api.Config{Dir: filepath.Join(dir, strings.Repeat("x", 100))}, spillway.ErrInvalid, "too long"},
		"a port":      {api.Config{Dir: shortDir(t), Listen: occupied.address}, spillway.ErrConflict, "--listen"},
	} {
		check(t, os.MkdirAll(tt.config.Dir, 0o700))
		err := api.NewServer(tt.config).Listen(t.Context())
		if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v saying %q", name, err, tt.is, tt.says)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(dir, api.SocketName)); string(text) != "precious" {
		t.Error("the file in the way was changed")
	}
}

func TestListen_WithoutAnAddressThereIsOnlyTheSocket(t *testing.T) {
	s := api.NewServer(api.Config{Engine: &engine{}, Log: slog.New(slog.DiscardHandler), Dir: shortDir(t)})
	check(t, s.Listen(t.Context()))
	if s.Addr() != "" {
		t.Errorf("address %q, want none", s.Addr())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, s.Run(ctx)) // which gives the socket back
}

func TestTokens_AreMadeOnceAndKeptHashed(t *testing.T) {
	dir := shortDir(t)
	first := startIn(t, &engine{}, dir)
	token := first.token(t)
	first.stop()
	stored, err := os.ReadFile(filepath.Join(dir, "tokens.json"))
	check(t, err)
	if bytes.Contains(stored, []byte(token)) {
		t.Error("the token itself is in tokens.json")
	}
	for _, name := range []string{"tokens.json", api.TokenName} {
		info, err := os.Stat(filepath.Join(dir, name))
		check(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", name, info.Mode())
		}
	}
	second := startIn(t, &engine{}, dir)
	if second.token(t) != token {
		t.Error("the second start made another token")
	}
	_, err = second.tcp(t).Info(t.Context())
	check(t, err)
	second.stop()

	for name, tt := range map[string]struct{ text, says string }{
		"damaged":   {"{", "damaged"},
		"newer":     {`{"version":7}`, "format 7"},
		"no format": {`{}`, "format 0"},
	} {
		check(t, os.WriteFile(filepath.Join(dir, "tokens.json"), []byte(tt.text), 0o600))
		err := api.NewServer(api.Config{Dir: dir}).Listen(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want an error saying %q", name, err, tt.says)
		}
		if text, _ := os.ReadFile(filepath.Join(dir, "tokens.json")); string(text) != tt.text {
			t.Errorf("%s: the file was overwritten", name)
		}
	}
}

func TestTokens_AStoredFileOfVersion1IsRead(t *testing.T) {
	dir := shortDir(t)
	text, err := os.ReadFile("testdata/tokens-v1.json")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "tokens.json"), text, 0o600))
	server := startIn(t, &engine{}, dir)
	a := request(t, server, "GET", "/v1/info", "localhost", "", "Bearer spw_of_a_stored_file", nil)
	if a.status != 200 {
		t.Errorf("answers %d %s", a.status, a.body)
	}
}

func TestClient_SaysWhatToDoWhenNoServerAnswers(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, api.SocketName)
	want := "no Spillway server answers at " + path + "; start one with: spillway server   (or spillway up): unavailable"
	client, err := api.NewClient("unix://"+path, "")
	check(t, err)
	if _, err := client.Info(t.Context()); !errors.Is(err, spillway.ErrUnavailable) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	server := startIn(t, &engine{}, dir)
	address := server.address
	server.stop()
	client, err = api.NewClient("http://"+address, "")
	check(t, err)
	if _, err := client.Info(t.Context()); !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "no Spillway server answers at http://"+address) {
		t.Errorf("got %v", err)
	}
	if err := client.Follow(t.Context(), castle, 0, nil); !errors.Is(err, spillway.ErrUnavailable) {
		t.Errorf("follow: %v, want ErrUnavailable at once", err)
	}
	for _, target := range []string{"", "localhost:7300", "unix://relative", "ftp://x", "http://x/path"} {
		if _, err := api.NewClient(target, ""); !errors.Is(err, spillway.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", target, err)
		}
	}
}

func TestClient_RecognisesAnotherServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	other := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/info" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, "<html>")
	})}
	ended := make(chan error, 1)
	go func() { ended <- other.Serve(l) }() // owned by the test, ended by Close below, which it waits for
	defer func() { check(t, other.Close()); <-ended }()
	client, err := api.NewClient("http://"+l.Addr().String(), "")
	check(t, err)
	_, info := client.Info(t.Context())
	_, apps := client.Apps(t.Context())
	for _, err := range []error{info, apps} {
		if !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "is not a Spillway server") {
			t.Errorf("got %v", err)
		}
	}
}
