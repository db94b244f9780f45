package oci_test

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/oci"
)

// TestMain keeps the tests from the credentials of whoever runs them.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "docker-config-")
	if err != nil {
		log.Fatal(err)
	}
	os.Setenv("DOCKER_CONFIG", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// house is a registry on a real port.
type house struct {
	host    string
	uploads atomic.Int64 // blobs and manifests that were sent to it
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			h.uploads.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	h.host = strings.TrimPrefix(server.URL, "http://")
	return h
}

// open makes a Registry for amd64 with certificate authorities that are the same everywhere.
func open(t *testing.T, conf oci.Config) *oci.Registry {
	t.Helper()
	if conf.Authorities == "" {
		conf.Authorities = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(conf.Authorities, []byte("authorities\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if conf.Architecture == "" {
		conf.Architecture = "amd64"
	}
	conf.Temp = t.TempDir()
	r, err := oci.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, _ := os.ReadDir(conf.Temp); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return r
}

// program is a program that no machine runs, with everything in it that says what it is. linker "" = static.
func program(machine elf.Machine, linker string) string {
	var b bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Ehsize: 64, Phentsize: 56, Shentsize: 64, Phoff: 64}
	copy(header.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}))
	if linker != "" {
		header.Phnum = 1
	}
	binary.Write(&b, binary.LittleEndian, header)
	if linker != "" {
		size := uint64(len(linker) + 1)
		binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 64 + 56, Filesz: size, Memsz: size})
		b.WriteString(linker + "\x00")
	}
	return b.String()
}

// artefact writes files; those whose name ends with * may be executed, and "-> X" is a link. Its digest is its name.
func artefact(t *testing.T, digest string, files map[string]string) spillway.Artefact {
	t.Helper()
	dir := t.TempDir()
	for _, file := range slices.Sorted(maps.Keys(files)) {
		mode := os.FileMode(0o600)
		target := filepath.Join(dir, strings.TrimSuffix(file, "*"))
		if strings.HasSuffix(file, "*") {
			mode = 0o711
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if link, ok := strings.CutPrefix(files[file], "-> "); ok {
			err = os.Symlink(link, target)
		} else {
			err = os.WriteFile(target, []byte(files[file]), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return spillway.Artefact{Digest: digest, Dir: dir, Source: "sha256:source"}
}

func service(name, run string) spillway.Service {
	return spillway.Service{Name: name, Run: spillway.Command{Shell: run}, Stop: spillway.DefaultStop()}
}

// pull gets an image as a node does.
func pull(t *testing.T, image string) v1.Image {
	t.Helper()
	ref, err := name.NewDigest(image)
	if err != nil {
		t.Fatal(err)
	}
	i, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func configOf(t *testing.T, i v1.Image) *v1.ConfigFile {
	t.Helper()
	c, err := i.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// files are the entries of an image's layers: "name mode" or "name -> target", with the text behind it.
func files(t *testing.T, i v1.Image) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := oci.Walk(i, func(h *tar.Header, text io.Reader) error {
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		body, err := io.ReadAll(text)
		what := fmt.Sprintf("%o %s", h.Mode, body)
		if h.Typeflag == tar.TypeSymlink {
			what = "-> " + h.Linkname
		}
		all[h.Name] = strings.TrimSpace(what)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// base puts an image with these files into a registry, and gives its name. Names with -> are links.
func (h *house) base(t *testing.T, config v1.ConfigFile, layers ...map[string]string) string {
	t.Helper()
	image := empty.Image
	for _, files := range layers {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, file := range slices.Sorted(maps.Keys(files)) {
			header := &tar.Header{Name: file, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(files[file]))}
			link, isLink := strings.CutPrefix(files[file], "-> ")
			if isLink {
				header = &tar.Header{Name: file, Typeflag: tar.TypeSymlink, Linkname: link}
			}
			if err := w.WriteHeader(header); err != nil {
				t.Fatal(err)
			}
			if !isLink {
				io.WriteString(w, files[file])
			}
		}
		w.Close()
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
		if err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, l); err != nil {
			t.Fatal(err)
		}
	}
	own := configOf(t, image)
	config.RootFS, config.History, config.OS = own.RootFS, own.History, "linux"
	image, err := mutate.ConfigFile(image, &config)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(h.host + "/base:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithContext(context.Background())); err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}
