// Package linelog writes lines to a file from a bounded queue, so that whoever has a line never waits for a disk.
//
// It knows files that others rename or remove meanwhile. It must not know what is in a line.
package linelog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	queued   = 4096        // lines that wait
	batch    = 64 << 10    // bytes of lines that are written at once
	keptLine = 4 << 10     // a larger buffer is not used again
	lookPer  = time.Second // how often the file is looked for under its name
	tellPer  = time.Minute // how often trouble is logged
)

// Log is a file of lines. Several processes may write to one file: each writes whole lines, to its end.
type Log struct {
	path    string // "" = file is not ours to open
	log     *slog.Logger
	queue   chan *[]byte
	buffers sync.Pool // of *[]byte

	file   *os.File // belongs to Run, like what follows; nil = it could not be opened again
	looked time.Time
	told   time.Time

	written, dropped atomic.Uint64
}

// Open makes the log of a path; "-" is the standard output. The file is made if need be. Nothing is written
// before Run.
func Open(path string, log *slog.Logger) (*Log, error) {
	l := &Log{path: path, log: log, queue: make(chan *[]byte, queued)}
	l.buffers.New = func() any { b := make([]byte, 0, 1024); return &b }
	if path == "-" {
		l.path, l.file = "", os.Stdout
		return l, nil
	}
	var err error
	l.file, err = open(path)
	return l, err
}

// open has the mode of a log that its group may read: there are addresses of people in it.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
}

// Buffer gives an empty buffer for a line. Put takes it back.
func (l *Log) Buffer() *[]byte { return l.buffers.Get().(*[]byte) }

// Put hands a line over, without the newline. It never waits: without room the line is dropped and counted.
func (l *Log) Put(line *[]byte) {
	*line = append(*line, '\n')
	select {
	case l.queue <- line:
	default:
		l.dropped.Add(1)
		l.recycle(line)
	}
}

func (l *Log) recycle(line *[]byte) {
	if cap(*line) <= keptLine {
		*line = (*line)[:0]
		l.buffers.Put(line)
	}
}

// Counts are the lines that were written, and those that were dropped.
func (l *Log) Counts() (written, dropped uint64) { return l.written.Load(), l.dropped.Load() }

// Run writes lines until done is closed, then what is left, and closes the file. A file that was renamed or
// removed, as logrotate does, is opened anew under its name; nobody has to tell.
func (l *Log) Run(done <-chan struct{}) {
	out := make([]byte, 0, batch)
	for {
		select {
		case line := <-l.queue:
			l.write(out, line)
			continue
		case <-done:
		}
		break
	}
	for {
		select {
		case line := <-l.queue:
			l.write(out, line)
			continue
		default:
		}
		break
	}
	if l.file != nil && l.path != "" {
		if err := l.file.Close(); err != nil {
			l.trouble(err)
		}
	}
}

// write writes a line together with those that wait behind it.
func (l *Log) write(out []byte, line *[]byte) {
	n := uint64(0)
	for {
		out = append(out, *line...)
		l.recycle(line)
		n++
		if len(out) >= batch {
			break
		}
		select {
		case line = <-l.queue:
			continue
		default:
		}
		break
	}
	l.look()
	err := fs.ErrClosed
	if l.file != nil {
		_, err = l.file.Write(out)
	}
	if err != nil {
		l.dropped.Add(n)
		l.trouble(err)
		return
	}
	l.written.Add(n)
}

// look opens the file anew when another one, or none, has its name.
func (l *Log) look() {
	now := time.Now()
	if l.path == "" || now.Sub(l.looked) < lookPer {
		return
	}
	l.looked = now
	if l.file != nil {
		named, err := os.Stat(l.path)
		own, ownErr := l.file.Stat()
		if err == nil && ownErr == nil && os.SameFile(named, own) {
			return
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.trouble(err)
			return // it is still the best place there is
		}
	}
	file, err := open(l.path)
	if err != nil {
		l.trouble(err)
		return
	}
	if l.file != nil {
		_ = l.file.Close() // its lines are written already
	}
	l.file = file
}

func (l *Log) trouble(err error) {
	if now := time.Now(); now.Sub(l.told) > tellPer {
		l.told = now
		l.log.Warn("lines of a log are not written; requests are served as ever", "dropped", l.dropped.Load(), "error", fmt.Errorf("log %s: %w", l.path, err))
	}
}
