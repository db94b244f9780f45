package state

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// A spec becomes the file of a release, and that must be the spec again: it would be written over what somebody applied.
func TestAsked_FileIsTheSpecAgain(t *testing.T) {
	files, err := filepath.Glob("../../appfile/testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no app files: %v", err)
	}
	texts := map[string][]byte{"odd": []byte(`{"app":"castle","x-odd":{"n":"y","yes":"no","on":"off","~":"null","1":"1","0x1f":"0o17","1e3":"1_000","2026-01-01":"12:30:45",
		"a: b":"# c","é":"'\"\\","":"","tab":"\t","lines":"a\n b\n","num":1.5,"big":12345678901234,"neg":-0.25,"nil":null,"e":[],"m":{}}}`)}
	for _, file := range files {
		if texts[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range texts {
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("1.50"), []byte(`"1.50"`)), []byte(" 010"), []byte(` "010"`)) // see the package
		spec, err := specOf(string(text))
		if err != nil {
			t.Fatal(err)
		}
		app := &v1alpha1.App{}
		app.Name, app.Generation, app.Spec.Raw = "castle", 1, spec
		w := Asked(app)
		if again, err := specOf(string(w.File)); err != nil || !same(again, spec) {
			t.Errorf("%s: %v\n%s\nbecame\n%s", name, err, spec, again)
		}
		if name == "odd" {
			continue
		}
		before, errBefore := appfile.Parse("a", text)
		after, errAfter := appfile.Parse("a", w.File)
		x, _ := document(before)
		y, _ := document(after)
		if errBefore != nil || errAfter != nil || string(x.Raw) != string(y.Raw) {
			t.Errorf("%s means something else as a spec: %v, %v\n%s", name, errBefore, errAfter, w.File)
		}
	}
}

func TestTakeOver_IsACommandThatRuns(t *testing.T) {
	for ref, want := range map[spillway.Ref]string{
		"castle":         "spillway export app | kubectl apply -n shop --server-side --force-conflicts --field-manager=spillway -f -",
		"castle@staging": "spillway export app --env staging | kubectl apply -n shop --server-side --force-conflicts --field-manager=spillway -f -",
	} {
		if got := takeOver(ref, "shop"); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
}
