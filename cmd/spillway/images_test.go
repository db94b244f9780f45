package main

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/oci"
	"github.com/spillway-dev/spillway/internal/oci/ocitest"
	"github.com/spillway-dev/spillway/internal/pipeline"
)

// The castle that runs as processes on one machine becomes images without a word about images in its app file, and
// what is in the layer is what was built.
func TestImages_OfTheCastle(t *testing.T) {
	const castle = "../../examples/castle"
	host := ocitest.Serve(t)
	builder, err := pipeline.NewBuilder(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	builder.ForImages()
	registry, err := oci.New(oci.Config{Repository: host + "/test", Temp: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if _, err := pipeline.Pack(&packed, castle); err != nil {
		t.Fatal(err)
	}
	tree, err := builder.Unpack(t.Context(), &packed)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(castle, appFile))
	if err != nil {
		t.Fatal(err)
	}
	app, err := appfile.Parse(appFile, text)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := app.Service("www")
	built, err := builder.Build(t.Context(), tree, s, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := registry.Push(t.Context(), app.Name, s, built)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := registry.Push(t.Context(), app.Name, s, built); err != nil || again != pushed {
		t.Errorf("pushed again: %+v, %v, want %+v", again, err, pushed)
	}
	if err := registry.Exists(t.Context(), pushed.Image); err != nil {
		t.Error(err)
	}
	image := ocitest.Pull(t, pushed.Image)
	if !slices.Equal(image.Config.Entrypoint, []string{"./www"}) || image.Config.WorkingDir != "/app" || image.Config.User != "65532:65532" {
		t.Errorf("the image is run as %+v", image.Config)
	}
	sameFiles(t, built.Dir, image)
	answers(t, image.Files["app/www"].Body)
}

// sameFiles holds what is in an image at /app to a directory.
func sameFiles(t *testing.T, dir string, image ocitest.Image) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if got, ok := image.Files["app/"+relative]; !ok || !bytes.Equal(got.Body, want) {
			t.Errorf("%s is another one in the image, or not there", relative)
		}
		n++
		return nil
	})
	if err != nil || n < 3 {
		t.Errorf("compared %d files, %v", n, err)
	}
	if mode := image.Files["app/www"].Mode; mode != 0o755 {
		t.Errorf("the program has mode %v", mode)
	}
}

// answers starts the program that came out of an image.
func answers(t *testing.T, program []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "www")
	if err := os.WriteFile(file, program, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, file)
	cmd.Env = []string{"HOST=127.0.0.1", "PORT=" + port}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	for {
		if resp, err := http.Get("http://127.0.0.1:" + port + "/healthz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("answered %s", resp.Status)
			}
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the program from the image does not answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
