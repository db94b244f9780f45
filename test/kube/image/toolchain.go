package image

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// PushToolchain pushes an image with Go as it is installed here, without what builds need not, and nothing else. It is
// not compressed: it goes to a registry on the same machine.
func PushToolchain(ctx context.Context, to string) error {
	tag, err := name.ParseReference(to)
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(toolchain, tarball.WithCompression(compression.None))
	if err != nil {
		return fmt.Errorf("pack Go: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Env = []string{"PATH=/usr/local/go/bin", "GOTOOLCHAIN=local", "CGO_ENABLED=0"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	if err := remote.Write(tag, image, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", to, err)
	}
	return nil
}

// toolchain is an archive of Go at /usr/local/go, with a /tmp.
func toolchain() (io.ReadCloser, error) {
	r, w := io.Pipe()
	// Owned by the reader; ends at the end of the archive or with the reader's Close, which makes writes fail.
	go func() {
		files := tar.NewWriter(w)
		err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777})
		for _, part := range []string{"VERSION", "go.env", "bin/go", "pkg/include", "pkg/tool", "src"} {
			if err == nil {
				err = pack(files, runtime.GOROOT(), part)
			}
		}
		if err == nil {
			err = files.Close()
		}
		w.CloseWithError(err)
	}()
	return r, nil
}

// pack writes the files of a part of Go.
func pack(files *tar.Writer, root, part string) error {
	return filepath.WalkDir(filepath.Join(root, part), func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || file == filepath.Join(root, "src", "cmd")) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join("usr/local/go", filepath.ToSlash(inside)), Mode: int64(info.Mode().Perm()), Size: info.Size()}
		if err := files.WriteHeader(h); err != nil {
			return err
		}
		text, err := os.Open(file)
		if err != nil {
			return err
		}
		defer text.Close()
		_, err = io.Copy(files, text)
		return err
	})
}
