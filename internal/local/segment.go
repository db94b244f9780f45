package local

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// logbook is the log of one group on disk: numbered segments of one JSON object a line. The first line of
// a segment is its head. Lines carry the place in the spool that they were copied up to, and the head
// carries the places of all spools at its beginning; so the newest segment alone tells how far every
// spool has been copied, and a copy that is cut off anywhere goes on without losing or repeating a line.
type logbook struct {
	dir      string
	segment  int64 // bytes after which the next segment begins
	segments int   // kept; the oldest goes first

	mu     sync.Mutex
	file   *os.File
	number int
	size   int64
	copied map[string]int64 // spool name → bytes copied
}

// segmentHead is the first line of a segment.
type segmentHead struct {
	Version int              `json:"version"`
	Copied  map[string]int64 `json:"copied"`
}

// entry is one line in a segment. Keys are short because there are many.
type entry struct {
	At      time.Time `json:"t"`
	Replica string    `json:"r"`
	Stream  string    `json:"s"` // "stdout" or "stderr"
	Spool   string    `json:"f"` // name of the spool that it came from
	End     int64     `json:"o"` // offset behind the line in the spool
	Text    string    `json:"x"`
}

// openLogbook opens the log in dir and makes it when it is missing. A line that a crash cut off is removed.
func openLogbook(dir string, t tuning) (*logbook, error) {
	b := &logbook{dir: dir, segment: t.segment, segments: t.segments, copied: map[string]int64{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	numbers, err := segmentsIn(dir)
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		return b, b.next()
	}
	b.number = numbers[len(numbers)-1]
	return b, b.resume()
}

// resume reads the newest segment to its last whole line and goes on behind it.
func (b *logbook) resume() error {
	f, err := os.OpenFile(segmentPath(b.dir, b.number), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b.file, b.size = f, 0
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			break // what is left has no end
		}
		if err != nil {
			return err
		}
		if b.size == 0 {
			var head segmentHead
			if err := json.Unmarshal(line, &head); err != nil || head.Version != format {
				return fmt.Errorf("%s: not a log of format %d; move it away to go on without it", f.Name(), format)
			}
			maps.Copy(b.copied, head.Copied)
		} else {
			var e entry
			if json.Unmarshal(line, &e) == nil {
				b.copied[e.Spool] = e.End
			}
		}
		b.size += int64(len(line))
	}
	if b.size == 0 {
		return b.begin()
	}
	if err := f.Truncate(b.size); err != nil {
		return err
	}
	_, err = f.Seek(b.size, io.SeekStart)
	return err
}

// next begins a new segment and removes the oldest ones.
func (b *logbook) next() error {
	f, err := os.OpenFile(segmentPath(b.dir, b.number+1), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if b.file != nil {
		err = b.file.Close()
	}
	b.number++
	b.file = f
	if err := errors.Join(err, b.begin()); err != nil {
		return err
	}
	numbers, err := segmentsIn(b.dir)
	for _, n := range numbers[:max(0, len(numbers)-b.segments)] {
		err = errors.Join(err, os.Remove(segmentPath(b.dir, n)))
	}
	return err
}

// begin writes the head of the present segment.
func (b *logbook) begin() error {
	text, err := json.Marshal(segmentHead{Version: format, Copied: b.copied})
	if err != nil {
		return err
	}
	text = append(text, '\n')
	_, err = b.file.WriteAt(text, 0)
	b.size = int64(len(text))
	return errors.Join(err, b.file.Truncate(b.size))
}

// add appends lines of one spool. On an error nothing was added.
func (b *logbook) add(lines []entry) error {
	if len(lines) == 0 {
		return nil
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	for _, e := range lines {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return os.ErrClosed
	}
	if b.size >= b.segment {
		if err := b.next(); err != nil {
			return err
		}
	}
	if _, err := b.file.WriteAt(text.Bytes(), b.size); err != nil {
		return errors.Join(err, b.file.Truncate(b.size))
	}
	b.size += int64(text.Len())
	last := lines[len(lines)-1]
	b.copied[last.Spool] = last.End
	return nil
}

// offset is how much of a spool has been copied.
func (b *logbook) offset(spool string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.copied[spool]
}

// forget drops the offset of a spool that has been deleted.
func (b *logbook) forget(spool string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.copied, spool)
}

func (b *logbook) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return nil
	}
	f := b.file
	b.file = nil
	return f.Close()
}

func segmentPath(dir string, number int) string {
	return filepath.Join(dir, fmt.Sprintf("%08d.ndjson", number))
}

// segmentsIn lists the numbers of the segments in dir, oldest first. A missing directory has none.
func segmentsIn(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !missing(err) {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".ndjson")); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// readSegment calls line for each whole entry from the offset on and gives the offset behind the last. It
// stops early when line returns an error.
func readSegment(path string, offset int64, line func(entry) error) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return offset, err
	}
	defer f.Close() //nolint:errcheck // read only
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return offset, err
	}
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		text, err := r.ReadBytes('\n')
		if err == io.EOF {
			return offset, nil
		}
		if err != nil {
			return offset, err
		}
		var e entry
		if json.Unmarshal(text, &e) == nil && e.Replica != "" { // else the head
			if err := line(e); err != nil {
				return offset, err
			}
		}
		offset += int64(len(text))
	}
}
