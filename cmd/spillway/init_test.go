package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInit_WritesAFileThatParsesAndNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("index.html", []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := invoke(t.Context(), "/nonexistent", "init")
	if got.code != exitDone || got.stdout != "wrote spillway.yaml\n" || !strings.Contains(got.stderr, "next: spillway up") {
		t.Fatalf("exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	file := filepath.Join(dir, appFile)
	if app, err := appOf(file); err != nil || app == "" {
		t.Errorf("the file is of app %q, %v", app, err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := invoke(t.Context(), "/nonexistent", "init"); got.code != exitUsage || !strings.Contains(got.stderr, "is there already") {
		t.Errorf("exit code %d, want 2: %s", got.code, got.stderr)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed (%v)", err)
	}
}

func TestInit_EndsWithAnExampleWhereNothingIsFound(t *testing.T) {
	got := invoke(t.Context(), "/nonexistent", "init", t.TempDir())
	if got.code != exitFailed || !strings.HasSuffix(got.stderr, "    host: shop.localhost\n") {
		t.Errorf("exit code %d\n%s", got.code, got.stderr)
	}
}
