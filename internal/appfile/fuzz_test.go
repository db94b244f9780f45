package appfile_test

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
)

// Parse never panics; its error is a list of mistakes; an App that it returns, written down as a file again,
// is the same App; and when it has no mistake, no environment has one.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"good", "bad"} {
		for _, file := range files(f, folder) {
			f.Add(read(f, file))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		app, err := appfile.Parse("a.yaml", text)
		if err != nil {
			var mistakes spillway.FieldErrors
			if !errors.As(err, &mistakes) || len(mistakes) == 0 {
				t.Fatalf("not a list of mistakes: %v", err)
			}
			return
		}
		if _, err := appfile.ParseEnvironment("a.yaml", text, "staging"); err != nil && !strings.Contains(err.Error(), `no environment "staging"`) {
			t.Fatalf("a mistake that production does not have: %v", err)
		}
		again, err := appfile.Parse("again.yaml", written(t, app))
		if err != nil {
			t.Fatalf("%v\n%s", err, written(t, app))
		}
		if !reflect.DeepEqual(app, again) {
			t.Fatalf("was\n%+v\nand is\n%+v", app, again)
		}
	})
}

func TestParse_ReadsBackWhatItRead(t *testing.T) {
	for _, file := range files(t, "good") {
		app, err := appfile.Parse(file, read(t, file))
		if err != nil {
			t.Fatal(err)
		}
		again, err := appfile.Parse("again.yaml", written(t, app))
		if err != nil || !reflect.DeepEqual(app, again) {
			t.Errorf("%s: was\n%+v\nand is\n%+v\n%v", file, app, again, err)
		}
	}
}

// written is an app file, in JSON, with everything that an App says.
func written(t testing.TB, app spillway.App) []byte {
	services := map[string]any{}
	for _, s := range app.Services {
		services[s.Name] = writtenService(s)
	}
	file := map[string]any{
		"app": app.Name, "services": services, "budget": app.Budget, "warmup": app.Warmup.String(), "delay": app.Delay.String(),
		"watch": app.Watch.String(), "deadline": app.Deadline.String(), "thin": app.Thin,
	}
	if app.BudgetUsers > 0 {
		file["budget"] = app.BudgetUsers.String() + " of users"
	}
	if app.Keep > 0 {
		file["keep"] = app.Keep
	}
	if app.Prometheus != "" {
		file["prometheus"] = app.Prometheus
	}
	var keys, windows []string
	var gates []any
	for _, k := range app.Cohort.Key {
		keys = append(keys, k.Kind+" "+k.Name)
	}
	for _, g := range app.Gates {
		gates = append(gates, map[string]any{"gate": g.Text, "from": g.From.String(), "dry-run": g.DryRun})
	}
	for _, w := range app.Freeze {
		windows = append(windows, w.Text)
	}
	if windows != nil {
		file["freeze"] = windows
	}
	if keys != nil {
		file["cohort"] = map[string]any{"key": keys}
	}
	if gates != nil {
		file["gates"] = gates
	}
	if app.Routes != nil {
		file["routes"] = writtenRoutes(app.Routes)
	}
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func writtenService(s spillway.Service) map[string]any {
	health := map[string]any{
		"interval": s.Health.Interval.String(), "timeout": s.Health.Timeout.String(), "start": s.Health.Start.String(),
		"healthy": s.Health.Healthy, "unhealthy": s.Health.Unhealthy,
	}
	if s.Health.Path != "" {
		health["path"] = s.Health.Path
	}
	file := map[string]any{
		"health": health, "scale": map[string]any{"min": s.Scale, "max": s.Max}, "strategy": s.Strategy,
		"surge": writtenCount(s.Surge), "unavailable": writtenCount(s.Unavailable), "protocol": s.Protocol,
		"stop": map[string]any{"signal": s.Stop.Signal, "grace": s.Stop.Grace.String(), "drain": s.Stop.Drain.String()},
	}
	limits := map[string]any{}
	if s.Limits.CPU > 0 {
		limits["cpu"] = s.Limits.CPU.String()
	}
	if s.Limits.Memory > 0 {
		limits["memory"] = s.Limits.Memory.String()
	}
	optional := map[string]any{"host": s.Host, "needs": s.Needs, "env": s.Env, "limits": limits, "steps": writtenSteps(s.Steps), "tracks": writtenTracks(s.Tracks), "listen": s.Listen, "proxy_protocol": s.Announce}
	maps.DeleteFunc(optional, func(_ string, v any) bool { return reflect.ValueOf(v).Len() == 0 })
	maps.Copy(file, optional)
	scale := file["scale"].(map[string]any)
	for of, target := range map[string]spillway.Share{"cpu": s.Targets.CPU, "memory": s.Targets.Memory, "tolerance": s.Targets.Tolerance} {
		if target > 0 {
			scale[of] = target.String()
		}
	}
	if s.Max == 0 {
		file["scale"] = s.Scale
	}
	if !s.Run.Zero() {
		file["run"] = writtenCommand(s.Run)
	}
	if s.Image != "" {
		file["image"] = s.Image
	}
	if s.Port > 0 {
		file["port"] = s.Port
	}
	if !s.Release.Zero() {
		file["release"] = writtenCommand(s.Release)
	}
	if s.TLS != nil {
		file["tls"] = writtenTLS(*s.TLS)
	}
	if s.Standby != nil {
		file["standby"] = s.Standby
	}
	if s.Synthetic != nil {
		file["synthetic"] = s.Synthetic
	}
	if s.Build != nil {
		build := map[string]any{"dir": s.Build.Dir}
		if !s.Build.Command.Zero() {
			build["command"] = writtenCommand(s.Build.Command)
		}
		file["build"] = build
	}
	return file
}

func writtenTLS(t spillway.TLS) map[string]any {
	written := map[string]any{"redirect": t.Redirect}
	if !t.Auto {
		written["cert"], written["key"] = t.Cert, t.Key
		return written
	}
	acme := map[string]any{"email": t.Email, "ca": t.CA, "root": t.Root}
	maps.DeleteFunc(acme, func(_ string, v any) bool { return v == "" })
	written["acme"] = acme
	return written
}

func writtenTracks(tracks []spillway.Track) map[string]any {
	written := map[string]any{}
	for _, t := range tracks {
		track := map[string]any{}
		optional := map[string]any{"branch": t.Branch, "host": t.Host, "urls": t.URLs}
		for _, m := range t.Match {
			rules, _ := optional[m.Kind].([]string)
			optional[m.Kind] = append(rules, m.Name+"="+m.Value)
		}
		maps.DeleteFunc(optional, func(_ string, v any) bool { return reflect.ValueOf(v).Len() == 0 })
		maps.Copy(track, optional)
		if t.Replicas > 0 {
			track["replicas"] = t.Replicas
		}
		switch {
		case t.Auto:
			track["share"] = "auto"
		case t.Share > 0:
			track["share"] = t.Share.String()
		}
		written[t.Name] = track
	}
	return written
}

func writtenCommand(c spillway.Command) any {
	if c.Exec != nil {
		return c.Exec
	}
	return c.Shell
}

func writtenCount(c spillway.Count) any {
	if c.Share > 0 {
		return c.Share.String()
	}
	return c.N
}

func writtenSteps(steps []spillway.StepSpec) []string {
	var list []string
	for _, s := range steps {
		switch {
		case s.Pause:
			list = append(list, "pause")
		default:
			list = append(list, s.Weight.String()+" "+s.Hold.String())
		}
	}
	return list
}
