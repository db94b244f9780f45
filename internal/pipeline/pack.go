package pipeline

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// Packed says what Pack wrote.
type Packed struct {
	Commit string // full hash of the checked-out commit; "" when dir is not in a git work tree or has no commit
	Dirty  bool   // a file below dir differs from Commit, or git does not know it
	Files  int    // regular files and links in the archive
	Bytes  int64  // their content, before compression
	// Skipped are the paths that were left out because no release can hold them: links to outside of
	// dir, sockets, devices, pipes. Sorted.
	Skipped []string
}

// Pack writes the source in dir as a gzipped tar. The same files give the same bytes: entries are in
// the order of their paths and carry no time or owner.
//
// In a git work tree the files are those that git tracks or would offer to track, as they are on disk;
// elsewhere, or when git ignores all of dir, everything but node_modules. Never packed: .git, .spillway.
// Directories are not entries, so an empty one is lost, as it would be in git.
func Pack(w io.Writer, dir string) (Packed, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Packed{}, fmt.Errorf("open source: %w", err)
	}
	defer root.Close()
	packed, names, err := sourceFiles(dir)
	if err != nil {
		return Packed{}, err
	}
	compressed := gzip.NewWriter(w)
	archive := tar.NewWriter(compressed)
	for _, name := range names {
		if err := packed.add(archive, root, name); err != nil {
			return packed, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return packed, fmt.Errorf("pack: %w", err)
	}
	if err := compressed.Close(); err != nil {
		return packed, fmt.Errorf("pack: %w", err)
	}
	return packed, nil
}

// add writes one file or link. A file that is gone since it was listed is no part of the source.
func (p *Packed) add(archive *tar.Writer, root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	header := &tar.Header{Name: name, Mode: int64(mode(info)), Format: tar.FormatPAX}
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		// Stat follows the link and refuses to leave root. A link to nothing inside is kept as it is.
		if _, err := root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.Skipped = append(p.Skipped, name)
			return nil
		}
		header.Typeflag = tar.TypeSymlink
		if header.Linkname, err = root.Readlink(name); err != nil {
			return err
		}
		p.Files++
		return archive.WriteHeader(header)
	case 0:
	default:
		p.Skipped = append(p.Skipped, name)
		return nil
	}
	file, err := root.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	n, err := io.CopyN(archive, file, info.Size())
	if errors.Is(err, io.EOF) {
		return errors.New("the file became shorter while it was read; deploy again")
	}
	p.Files++
	p.Bytes += n
	return err
}

// mode is the part of a file's mode that a release keeps: whether it can be executed.
func mode(info fs.FileInfo) fs.FileMode {
	if info.Mode()&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

// sourceFiles lists what Pack packs, relative to dir, slash-separated, sorted.
func sourceFiles(dir string) (Packed, []string, error) {
	var packed Packed
	names, err := gitFiles(dir)
	if err != nil {
		return packed, nil, err
	}
	if names != nil {
		head, err := git(dir, "rev-parse", "--verify", "--quiet", "HEAD")
		if err == nil { // else there is no commit yet
			packed.Commit = strings.TrimSpace(string(head))
		}
		changes, err := git(dir, "status", "--porcelain", "--untracked-files=normal", "--", ".")
		if err != nil {
			return packed, nil, err
		}
		packed.Dirty = len(changes) > 0
		return packed, names, nil
	}
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || own(name)):
			return fs.SkipDir
		case !d.IsDir() && !own(name):
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return packed, nil, fmt.Errorf("list source: %w", err)
	}
	slices.Sort(names)
	return packed, names, nil
}

// own reports whether a path is git's or Spillway's own matter.
func own(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool { return part == ".git" || part == ".spillway" })
}

// gitFiles lists the files of a git work tree below dir; nil when there is no git, no work tree, or
// nothing in dir that git does not ignore.
func gitFiles(dir string) ([]string, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return nil, nil
	}
	inside, err := git(dir, "rev-parse", "--is-inside-work-tree")
	if err != nil && strings.Contains(err.Error(), "not a git repository") {
		return nil, nil
	}
	if err != nil || strings.TrimSpace(string(inside)) != "true" {
		return nil, err
	}
	list, err := git(dir, "ls-files", "-co", "--exclude-standard", "-z")
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range strings.SplitSeq(string(list), "\x00") {
		if name == "" || own(name) {
			continue
		}
		name = strings.TrimSuffix(name, "/")
		info, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil || !info.IsDir() {
			names = append(names, name)
			continue
		}
		// A directory in this list is another repository: a submodule, or one that git does not track.
		if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name), ".git")); err != nil {
			continue // a submodule that was not fetched
		}
		nested, err := gitFiles(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		for _, n := range nested {
			names = append(names, path.Join(name, n))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil // a file in conflict is listed once per side
}

// git runs git in dir and gives its standard output.
func git(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		// Inside of a git hook these name the hook's repository, which need not be dir's.
		if !slices.Contains([]string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX"}, name) {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s in %s: %w: %s", args[0], dir, err, strings.TrimSpace(complaint.String()))
	}
	return out, nil
}

// tooLarge is the error for a source above a limit.
func tooLarge(what string) error {
	return fmt.Errorf("the source has more than %s: is a build output or a data directory in it that .gitignore should name? (%w)", what, spillway.ErrInvalid)
}
