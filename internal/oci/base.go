package oci

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// contents are the names in an image with where those that are links point: "" for all others.
type contents map[string]string

// contentsOf reads the names of all layers of an image.
func contentsOf(image v1.Image) (contents, error) {
	all := contents{}
	err := Walk(image, func(h *tar.Header, _ io.Reader) error {
		all.add(h)
		return nil
	})
	return all, err
}

// Walk visits the entries of all layers of an image, from the lowest layer up, which takes as long as to pull it. The
// text of a file is there until visit returns; an error of visit ends the walk.
func Walk(image v1.Image, visit func(h *tar.Header, text io.Reader) error) error {
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if err := walk(l, visit); err != nil {
			return err
		}
	}
	return nil
}

func walk(l v1.Layer, visit func(h *tar.Header, text io.Reader) error) error {
	archive, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer archive.Close()
	for files := tar.NewReader(archive); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a layer: %w", err)
		}
		if err := visit(h, files); err != nil {
			return err
		}
	}
}

// add puts an entry of a layer upon those of the layers below it.
func (c contents) add(h *tar.Header) {
	name := path.Join("/", h.Name)
	if base := path.Base(name); strings.HasPrefix(base, ".wh.") { // what the layer takes away
		c.remove(path.Join(path.Dir(name), strings.TrimPrefix(base, ".wh.")), base == ".wh..wh..opq")
		return
	}
	c[name] = ""
	if h.Typeflag == tar.TypeSymlink {
		c[name] = h.Linkname
	}
}

// remove takes away a name with all below it; for an opaque directory only what is below its parent.
func (c contents) remove(name string, opaque bool) {
	if opaque {
		name = path.Dir(name)
	} else {
		delete(c, name)
	}
	for other := range c {
		if strings.HasPrefix(other, strings.TrimSuffix(name, "/")+"/") {
			delete(c, other)
		}
	}
}

// has reports whether a file is there, behind links too.
func (c contents) has(name string) bool {
	at, rest := "/", strings.TrimPrefix(path.Clean(name), "/")
	for links := 0; rest != ""; {
		first, after, _ := strings.Cut(rest, "/")
		at, rest = path.Join(at, first), after
		link, ok := c[at]
		if !ok && rest == "" {
			return false
		}
		if link == "" {
			continue // a directory may have no entry of its own
		}
		if links++; links > 40 {
			return false
		}
		if !path.IsAbs(link) {
			link = path.Join(path.Dir(at), link)
		}
		at, rest = "/", strings.TrimPrefix(path.Join(link, rest), "/")
	}
	return true
}

// find reports whether a wanted file is there: at its path, or in one of the directories of PATH.
func (c contents) find(name, search string) bool {
	if strings.Contains(name, "/") {
		return c.has(name)
	}
	for dir := range strings.SplitSeq(search, ":") {
		if c.has(path.Join(dir, name)) {
			return true
		}
	}
	return false
}
