// Package ocitest is a registry for the tests of those that use images, and a look into what is in it.
package ocitest

import (
	"archive/tar"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/spillway-dev/spillway/internal/oci"
)

// Serve runs an empty registry on a free port of 127.0.0.1 until the test ends, and gives its "HOST:PORT".
func Serve(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// Image is what a node would get.
type Image struct {
	Config v1.Config
	Files  map[string]File // by name in the archives of the layers: "app/www"; later layers win
}

// File is one entry of a layer.
type File struct {
	Mode fs.FileMode
	Body []byte
	Link string // where a link points
}

// Pull gets an image by its name; it fails the test where there is none.
func Pull(t testing.TB, image string) Image {
	t.Helper()
	got, err := pull(image)
	if err != nil {
		t.Fatalf("pull %s: %v", image, err)
	}
	return got
}

func pull(image string) (Image, error) {
	got := Image{Files: map[string]File{}}
	ref, err := name.ParseReference(image)
	if err != nil {
		return got, err
	}
	found, err := remote.Image(ref)
	if err != nil {
		return got, err
	}
	config, err := found.ConfigFile()
	if err != nil {
		return got, err
	}
	got.Config = config.Config
	return got, oci.Walk(found, func(h *tar.Header, text io.Reader) error {
		body, err := io.ReadAll(text)
		got.Files[h.Name] = File{Mode: h.FileInfo().Mode(), Body: body, Link: h.Linkname}
		return err
	})
}
