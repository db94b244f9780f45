package pipeline

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// Bounds of a source, after decompression.
const (
	maxSourceBytes = 512 << 20
	maxSourceFiles = 200_000
	maxFileBytes   = 1 << 20 // that File reads
)

// Tree is a source that Unpack stored. It stays until the server ends or, six hours after its
// last Unpack, Prune removes it.
type Tree struct {
	Digest string // "sha256:…" over names, modes and contents
	Dir    string // absolute
}

// Unpack stores the source in a gzipped tar once under its digest. It refuses, with an ErrInvalid,
// what does not stay inside of the source (absolute paths, "..", links), devices, more than 512 MiB or
// 200,000 entries, and archives that end early.
func (b *Builder) Unpack(ctx context.Context, r io.Reader) (Tree, error) {
	temp, err := os.MkdirTemp(b.temp, "source-")
	if err != nil {
		return Tree{}, b.disk("store source", err)
	}
	defer b.discard(temp)
	if err := b.extract(ctx, r, temp); err != nil {
		return Tree{}, b.disk("unpack source", err)
	}
	digest, err := digestDir(temp, "")
	if err != nil {
		return Tree{}, fmt.Errorf("digest source: %w", err)
	}
	tree := Tree{Digest: digest, Dir: filepath.Join(b.sources, hexOf(digest))}
	b.storing.Lock()
	defer b.storing.Unlock()
	now := time.Now()
	if os.Chtimes(tree.Dir, now, now) == nil {
		return tree, nil // it is there, and is fresh again for Prune
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return Tree{}, fmt.Errorf("store source: %w", err)
	}
	if err := os.Rename(temp, tree.Dir); err != nil {
		return Tree{}, b.disk("store source", err)
	}
	return tree, nil
}

// extract writes the entries of an archive below dir.
func (b *Builder) extract(ctx context.Context, r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	compressed, err := gzip.NewReader(r)
	if err != nil {
		return broken(err)
	}
	// One byte above the limit tells a source that is too large from one that just fits.
	plain := &io.LimitedReader{R: reader{ctx, compressed}, N: b.maxBytes + 1}
	archive := tar.NewReader(plain)
	var links []string
	for n := 0; ; n++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if n >= b.maxFiles {
			return tooLarge(fmt.Sprintf("%d files", b.maxFiles))
		}
		if err == nil {
			err = entry(root, header, archive)
		}
		if plain.N <= 0 {
			return tooLarge(spillway.Bytes(b.maxBytes).String())
		}
		if err != nil {
			return broken(err)
		}
		if header.Typeflag == tar.TypeSymlink {
			links = append(links, path.Clean(header.Name))
		}
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // to the checksum at the end
		return broken(err)
	}
	if plain.N <= 0 { // the limit can look like the end of the archive
		return tooLarge(spillway.Bytes(b.maxBytes).String())
	}
	for _, link := range links {
		// Only with all links in place is it known where each leads. Stat refuses to leave root.
		if _, err := root.Stat(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the link %s leads out of the source: %w", link, spillway.ErrInvalid)
		}
	}
	return nil
}

// entry writes one entry of an archive.
func entry(root *os.Root, header *tar.Header, content io.Reader) error {
	name := path.Clean(header.Name)
	if !filepath.IsLocal(header.Name) {
		return fmt.Errorf("the path %q leads out of the source: %w", header.Name, spillway.ErrInvalid)
	}
	if header.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeReg:
		file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode(header.FileInfo()))
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		return errors.Join(err, file.Close())
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeXGlobalHeader: // git archive writes one
		return nil
	}
	return fmt.Errorf("%s is neither a file nor a directory nor a link (type %q): %w", name, header.Typeflag, spillway.ErrInvalid)
}

// broken makes an ErrInvalid of an error that the archive caused; errors of the disk, the context and
// those that say so already stay what they are.
func broken(err error) error {
	var onDisk *fs.PathError
	var errno syscall.Errno
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("the archive ends early; send it again (%w)", spillway.ErrInvalid)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("not a gzipped tar: %w (%w)", err, spillway.ErrInvalid)
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("the archive has two entries for one path: %w (%w)", err, spillway.ErrInvalid)
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP):
		return fmt.Errorf("%w (%w)", err, spillway.ErrInvalid)
	case errors.As(err, &onDisk) && !errors.As(err, &errno):
		// The system had no objection, so it was os.Root: it has no other error of its own here.
		return fmt.Errorf("the path %s leads out of the source through a link: %w", onDisk.Path, spillway.ErrInvalid)
	}
	return err
}

// reader is a reader that ends with its context, which it keeps for one call of extract only.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// File reads one file of a source, at most 1 MiB. It is ErrNotFound when there is none.
func (b *Builder) File(t Tree, name string) ([]byte, error) {
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	defer root.Close()
	file, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the source has no file %s: %w", name, spillway.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read source: %w (%w)", err, spillway.ErrInvalid)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %s: %w", name, spillway.Bytes(maxFileBytes), spillway.ErrInvalid)
	}
	return text, nil
}
