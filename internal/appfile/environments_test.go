package appfile_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	_ "time/tzdata" // the time zones of the files, on machines without any

	"github.com/spillway-dev/spillway/internal/appfile"
)

func TestParseEnvironment_MergesWhatIsDifferent(t *testing.T) {
	for _, name := range []string{"agendor", "tiers"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", "good", name+".yaml")
			app, err := appfile.ParseEnvironment(file, read(t, file), "staging")
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(app, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".staging.json", append(got, '\n'))
		})
	}
}

// Each row is one environment of a file with the service web, at scale 2, and what its App becomes.
func TestParseEnvironment_ProductionIsTheFileItself(t *testing.T) {
	const base = "app: shop\nservices: {web: {run: x, scale: 2}}\n"
	const both = base + "environments: {production: {services: {web: {scale: 7}}}, staging: {services: {web: {scale: 1}}}}\n"
	for _, row := range []struct {
		text, env string
		scale     int
	}{
		{base, "", 2}, {base, "production", 2},
		{base + "environments: {staging: {}}\n", "", 2}, {base + "environments: {staging: {}}\n", "staging", 2},
		{both, "", 7}, {both, "production", 7}, {both, "staging", 1},
	} {
		app, err := appfile.ParseEnvironment("a.yaml", []byte(row.text), row.env)
		if err != nil || app.Services[0].Scale != row.scale {
			t.Errorf("%q of\n%sgot %+v, %v; want scale %d", row.env, row.text, app.Services, err, row.scale)
		}
	}
}

func TestParseEnvironment_NamesTheEnvironmentsThatThereAre(t *testing.T) {
	const base = "app: shop\nservices: {web: {run: x}}\n"
	for text, want := range map[string]string{
		base: `a.yaml: environments: there is no environment "stagin" in the file; the only environment is production; write environments: {staging: {services: {…}}} to have another`,
		base + "environments: {test: {}, staging: {}}\n": `a.yaml:3:1: environments: there is no environment "stagin" in the file; the environments are production, staging, test`,
	} {
		if _, err := appfile.ParseEnvironment("a.yaml", []byte(text), "stagin"); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// A mistake that only another environment has makes the file invalid for all.
func TestParse_ChecksEveryEnvironment(t *testing.T) {
	const text = "app: shop\nservices: {web: {run: x, needs: [db]}, db: {run: y}}\nenvironments:\n  staging: {services: {db: null}}\n"
	const want = `a.yaml:2:34: environments.staging.services.web.needs[0]: there is no service "db"; the services are web`
	for _, env := range []string{"", "staging"} {
		if _, err := appfile.ParseEnvironment("a.yaml", []byte(text), env); err == nil || err.Error() != want {
			t.Errorf("%q: got  %v\nwant %s", env, err, want)
		}
	}
}

func TestParse_RefusesVeryManyGatesAndWindows(t *testing.T) {
	text := "app: shop\nservices: {web: {run: x}}\nprometheus: http://a\ngates:\n"
	for i := range 101 {
		text += fmt.Sprintf("- query: a > %d\n", i)
	}
	text += "freeze:\n" + strings.Repeat("- Fri 16:00 - Mon 08:00\n", 101)
	const want = "a.yaml:5:1: gates: has 101 items, more than 100; keep those that matter\n" +
		"a.yaml:107:1: freeze: has 101 items, more than 100; keep those that matter"
	if _, err := appfile.Parse("a.yaml", []byte(text)); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestParse_RefusesVeryManyEnvironments(t *testing.T) {
	var text strings.Builder
	text.WriteString("app: shop\nservices: {web: {run: x}}\nenvironments:\n")
	for i := range 21 {
		fmt.Fprintf(&text, "  e%d: {}\n", i)
	}
	_, err := appfile.Parse("many.yaml", []byte(text.String()))
	if err == nil || !strings.Contains(err.Error(), "has 21 entries, more than 20") {
		t.Fatalf("got %v, want a refusal that says how many there may be", err)
	}
}
