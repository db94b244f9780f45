package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxLine   = 16 << 10 // a longer line is cut into several
	chunk     = 64 << 10 // read from a spool at once
	keepSpool = 64 << 10 // never punched away, so that the last lines can be shown when the program ends
	lastLines = 20       // shown when a program ends
)

// spool is the file that one stream of a process writes to. It is copied to a logbook line by line, and
// what has been copied is given back to the file system without disturbing the writer.
type spool struct {
	path    string // …/runs/www.4-1.17.out
	replica string
	book    *logbook
	notify  func() // after lines were added
	punched int64
}

// key names the spool in its logbook.
func (s *spool) key() string { return filepath.Base(s.path) }

func (s *spool) stream() string {
	if strings.HasSuffix(s.path, ".err") {
		return "stderr"
	}
	return "stdout"
}

// follow copies the spool until ended is closed and everything has been copied; then it deletes the
// spool. When ctx ends first, the rest stays for the next start of the server. A log that cannot be
// written (a full disk) is tried again: meanwhile the lines wait in the spool.
func (s *spool) follow(ctx context.Context, ended <-chan struct{}, every time.Duration, log *slog.Logger) {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		log.Error("output cannot be read", "replica", s.replica, "error", err)
		return
	}
	defer f.Close() //nolint:errcheck // nothing is written through it
	tick := time.NewTicker(every)
	defer tick.Stop()
	for over, warned := false, false; ; {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			over, ended = true, nil
		case <-tick.C:
		}
		if over {
			if err = s.finish(f); err == nil {
				return
			}
		} else {
			err = s.copy(f, !final)
		}
		if err != nil && !warned {
			log.Error("output cannot be copied to the log", "replica", s.replica, "error", err)
		}
		warned = err != nil
	}
}

// finish copies the rest of a spool that nobody writes to any more and deletes it.
func (s *spool) finish(f *os.File) error {
	if err := s.copy(f, final); err != nil {
		return err
	}
	if err := os.Remove(s.path); err != nil && !missing(err) {
		return err
	}
	s.book.forget(s.key())
	return nil
}

// final says that a last line without an end is a line too.
const final = true

// copy brings everything that is new to the logbook.
func (s *spool) copy(f *os.File, last bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	offset := s.book.offset(s.key())
	if offset >= info.Size() {
		return nil
	}
	buf := make([]byte, min(chunk, info.Size()-offset+1)) // one more, to see the end
	for ; ; offset = s.book.offset(s.key()) {
		n, err := f.ReadAt(buf, offset)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		lines := s.cut(buf[:n], offset, last && n < len(buf))
		if len(lines) == 0 {
			return nil
		}
		if err := s.book.add(lines); err != nil {
			return fmt.Errorf("log of %s: %w", s.replica, err)
		}
		s.notify()
		s.punch(f, lines[len(lines)-1].End)
	}
}

// cut divides text that stands at offset of the spool into lines.
func (s *spool) cut(text []byte, offset int64, last bool) []entry {
	var lines []entry
	now := time.Now().UTC()
	for len(text) > 0 {
		n := bytes.IndexByte(text, '\n') + 1
		whole := n > 0
		switch {
		case whole && n <= maxLine:
		case len(text) >= maxLine:
			n, whole = maxLine, false
		case last:
			n = len(text)
		default:
			return lines
		}
		line := text[:n]
		if whole {
			line = bytes.TrimSuffix(line[:n-1], []byte{'\r'})
		}
		offset += int64(n)
		text = text[n:]
		lines = append(lines, entry{At: now, Replica: s.replica, Stream: s.stream(), Spool: s.key(), End: offset, Text: string(line)})
	}
	return lines
}

// punch gives the copied part back to the file system. Where that is refused the spool grows until its
// process is started again; doctor says so.
func (s *spool) punch(f *os.File, copied int64) {
	upTo := (copied - keepSpool) &^ (chunk - 1)
	if upTo <= s.punched {
		return
	}
	s.punched = upTo
	_ = punchHole(f, upTo)
}

// punchHole frees the first n bytes of a file and keeps its length.
func punchHole(f *os.File, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, n)
}

// tail gives the last lines of a stream that was written to the spool at path, without empty ones.
func tail(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // read only
	const window = 4 << 10
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	buf := make([]byte, min(end, window))
	if _, err := f.ReadAt(buf, end-int64(len(buf))); err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(buf)) {
		if line = strings.TrimSpace(strings.ToValidUTF8(line, "?")); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-lastLines):]
}
