package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// appDir is where an artefact is in its image, and the working directory of its programs.
const appDir = "/app"

// layerFiles is the pattern of the names of layers that are being written.
const layerFiles = "spillway-layer-*.tar.gz"

// layer is a layer of an image in a file, or in no file any more: then only its digests are known.
type layer struct {
	file   string
	media  types.MediaType
	digest v1.Hash // of the compressed bytes
	diff   v1.Hash // of the archive
	size   int64   // of the compressed bytes
}

// The methods of v1.Layer.

// Digest is of the compressed bytes.
func (l layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID is the digest of the archive.
func (l layer) DiffID() (v1.Hash, error) { return l.diff, nil }

// Size is of the compressed bytes.
func (l layer) Size() (int64, error) { return l.size, nil }

// MediaType says that it is compressed by gzip.
func (l layer) MediaType() (types.MediaType, error) { return l.media, nil }

// Compressed reads the layer; the caller closes it.
func (l layer) Compressed() (io.ReadCloser, error) { return os.Open(l.file) }

// Uncompressed reads the archive; the caller closes it.
func (l layer) Uncompressed() (io.ReadCloser, error) {
	file, err := os.Open(l.file)
	if err != nil {
		return nil, err
	}
	text, err := gzip.NewReader(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{text, file}, nil
}

// discard removes the file, if there is one.
func (l layer) discard() error {
	if l.file == "" {
		return nil
	}
	return os.Remove(l.file)
}

// archive writes a layer. Its entries have no times and belong to root, so that the same files are the same layer.
type archive struct {
	*tar.Writer
	zip  *gzip.Writer
	file *os.File
	size int64
	sum  hash.Hash // of the compressed bytes
	diff hash.Hash
}

func newArchive(temp string) (*archive, error) {
	file, err := os.CreateTemp(temp, layerFiles)
	if err != nil {
		return nil, err
	}
	a := &archive{file: file, sum: sha256.New(), diff: sha256.New()}
	a.zip = gzip.NewWriter(io.MultiWriter(file, a.sum, counter{&a.size}))
	a.Writer = tar.NewWriter(io.MultiWriter(a.zip, a.diff))
	return a, nil
}

// counter counts the bytes that are written to it.
type counter struct{ n *int64 }

func (c counter) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return len(p), nil
}

// finish ends the layer. With an error before it or of its own, the file is removed.
func (a *archive) finish(err error) (layer, error) {
	if err == nil {
		err = a.Close()
	}
	if err = errors.Join(err, a.zip.Close(), a.file.Close()); err != nil {
		return layer{}, errors.Join(err, os.Remove(a.file.Name()))
	}
	return layer{
		file: a.file.Name(), media: types.OCILayer, size: a.size,
		digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(a.sum.Sum(nil))},
		diff:   v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(a.diff.Sum(nil))},
	}, nil
}

// add writes one entry, without a body.
func (a *archive) add(kind byte, name string, mode fs.FileMode, size int64, link string) error {
	bits := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return a.WriteHeader(&tar.Header{Typeflag: kind, Name: name, Mode: bits, Size: size, Linkname: link, ModTime: time.Unix(0, 0).UTC()})
}

// text writes one small file.
func (a *archive) text(name string, body []byte) error {
	if err := a.add(tar.TypeReg, name, 0o644, int64(len(body)), ""); err != nil {
		return err
	}
	_, err := io.Copy(a, bytes.NewReader(body))
	return err
}

// directoryLayer is the layer with an artefact at /app. Of the mode of a file it keeps what a release keeps:
// whether it can be executed. What a build left behind that is no file, directory or link is left out.
func directoryLayer(ctx context.Context, dir, temp string) (layer, error) {
	a, err := newArchive(temp)
	if err != nil {
		return layer{}, err
	}
	return a.finish(filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		relative, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name := path.Join(appDir[1:], filepath.ToSlash(relative))
		switch d.Type() {
		case fs.ModeDir:
			return a.add(tar.TypeDir, name+"/", 0o755, 0, "")
		case fs.ModeSymlink:
			link, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return a.add(tar.TypeSymlink, name, 0o777, 0, link)
		case 0:
			return a.copy(file, name)
		}
		return nil
	}))
}

// copy writes one file of an artefact.
func (a *archive) copy(file, name string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	if err := a.add(tar.TypeReg, name, mode, info.Size(), ""); err != nil {
		return err
	}
	if _, err := io.Copy(a, in); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// nobody is the user that programs run as where nothing else is said, as in most images without a shell.
const nobody = "65532:65532"

// groundLayer is what programs expect of a machine where there is no base: who they are, a place for temporary files, and
// whom to trust. Time zones are not in it: Go programs that need them import time/tzdata.
func groundLayer(authorities []byte, temp string) (layer, error) {
	a, err := newArchive(temp)
	if err != nil {
		return layer{}, err
	}
	write := func() error {
		for _, dir := range []string{"etc/", "etc/ssl/", "etc/ssl/certs/"} {
			if err := a.add(tar.TypeDir, dir, 0o755, 0, ""); err != nil {
				return err
			}
		}
		files := []struct {
			name string
			body []byte
		}{
			{"etc/group", []byte("root:x:0:\nnonroot:x:65532:\n")},
			{"etc/passwd", []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n")},
			{"etc/ssl/certs/ca-certificates.crt", authorities},
		}
		for _, f := range files {
			if f.body == nil {
				continue
			}
			if err := a.text(f.name, f.body); err != nil {
				return err
			}
		}
		return a.add(tar.TypeDir, "tmp/", 0o777|fs.ModeSticky, 0, "")
	}
	return a.finish(write())
}
