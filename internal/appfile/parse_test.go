package appfile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
)

var update = flag.Bool("update", false, "rewrite the expected results in testdata")

// golden compares got with a file of testdata, or writes it there with -update.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (go test -update rewrites it)\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

// files gives the app files of a folder of testdata.
func files(t testing.TB, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no files in testdata/%s: %v", folder, err)
	}
	return names
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestParse_FillsInEveryDefault(t *testing.T) {
	for _, file := range files(t, "good") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			app, err := appfile.Parse(filepath.Base(file), read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(app, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".json", append(got, '\n'))
		})
	}
}

func TestParse_ReportsEveryMistakeAtOnce(t *testing.T) {
	for _, file := range files(t, "bad") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := appfile.Parse(filepath.Base(file), read(t, file))
			if !errors.Is(err, spillway.ErrInvalid) {
				t.Fatalf("got error %v, want one that is ErrInvalid", err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".errors", []byte(err.Error()+"\n"))
		})
	}
}

// A file of aliases of aliases is small and stands for very much: it must be refused, and soon.
func TestParse_RefusesAliasesThatMultiply(t *testing.T) {
	text := "app: shop\nservices:\n  web: {run: x}\nx-0: &a0 {run: x}\n"
	for i := range 40 {
		text += fmt.Sprintf("x-%d: &a%d {<<: [*a%d, *a%d]}\n", i+1, i+1, i, i)
	}
	_, err := appfile.Parse("bomb.yaml", []byte(text+"cohort: *a40\n"))
	if err == nil || !strings.Contains(err.Error(), "more than 10000 values") {
		t.Fatalf("got %.200v, want a refusal that says how many values there are", err)
	}
	if n := len(err.(spillway.FieldErrors)); n > 20 {
		t.Errorf("got %d mistakes for one cause", n)
	}
}

func TestParse_RefusesHugeFile(t *testing.T) {
	_, err := appfile.Parse("huge.yaml", append([]byte("app: shop\n#"), bytes.Repeat([]byte("x"), 1<<20)...))
	if err == nil || !strings.Contains(err.Error(), "more than 1048576") {
		t.Fatalf("got %v, want a refusal that says how large it may be", err)
	}
}

// A file with Windows line ends or a byte order mark is the same file.
func TestParse_TakesWindowsText(t *testing.T) {
	text := "\ufeff" + strings.ReplaceAll(string(read(t, "testdata/good/castle.yaml")), "\n", "\r\n")
	if _, err := appfile.Parse("castle.yaml", []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestParse_RefusesVeryManyServices(t *testing.T) {
	text := "app: shop\nservices:\n"
	for i := range 101 {
		text += fmt.Sprintf("  s%d: {run: x}\n", i)
	}
	_, err := appfile.Parse("many.yaml", []byte(text))
	if err == nil || !strings.Contains(err.Error(), "has 101 entries, more than 100") {
		t.Fatalf("got %v, want a refusal that says how many there may be", err)
	}
}
