package kube

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
)

// examples are the app files of the examples, by "castle", "agendor-phase1".
func examples(t *testing.T) map[string]Export {
	t.Helper()
	files, err := filepath.Glob("../../examples/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	all := map[string]Export{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		app, err := appfile.Parse(file, text)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(filepath.Dir(file))
		if base := filepath.Base(file); base != "spillway.yaml" {
			name += "-" + strings.TrimSuffix(base, ".yaml")
		}
		r := spillway.Release{App: spillway.Ref(app.Name), Config: app, Artefacts: map[string]spillway.Artefact{}}
		for _, s := range app.Services {
			r.Artefacts[s.Name] = spillway.Artefact{Image: "registry.example.com/" + app.Name + "-" + s.Name + ":release-1"}
		}
		all[name] = Export{Release: r, Namespace: "shop", Gateway: Gateway{Namespace: "edge", Name: "public"}}
	}
	return all
}

func TestExport_OfEveryExample(t *testing.T) {
	for name, e := range examples(t) {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := e.Write(&got); err != nil {
				got.Reset()
				got.WriteString("# cannot be exported: " + err.Error() + "\n")
			}
			path := filepath.Join("testdata", "export", name+".yaml")
			if *update {
				if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(want, got.Bytes()) {
				t.Errorf("%s differs (%v); look at what -update writes", path, err)
			}
		})
	}
}

func TestExport_HasTheReleaseCommand(t *testing.T) {
	e := Export{Release: castle(1, map[string]int{"www": 1, "backend": 1}), Gateway: Gateway{Namespace: "edge", Name: "public"}, Comments: map[string]string{"www": "# look here"}}
	var got bytes.Buffer
	if err := e.Write(&got); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"kind: Job", "/app/migrate", "# look here", "kind: HTTPRoute", "name: castle-www-1\n"} {
		if !strings.Contains(got.String(), part) {
			t.Errorf("there is no %q in it", part)
		}
	}
	if strings.Contains(got.String(), "namespace: shop") {
		t.Error("it names a namespace")
	}
}
