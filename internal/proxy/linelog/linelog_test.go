package linelog

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func running(t *testing.T, path string) (l *Log, stop func()) {
	t.Helper()
	l, err := Open(path, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { // owned by the test; stop ends it
		defer close(ended)
		l.Run(done)
	}()
	stop = sync.OnceFunc(func() {
		close(done)
		<-ended
	})
	t.Cleanup(stop)
	return l, stop
}

func put(l *Log, text string) {
	b := l.Buffer()
	*b = append(*b, text...)
	l.Put(b)
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func TestLog_WritesWhatIsLeftAtTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, stop := running(t, path)
	for i := range queued / 2 {
		put(l, fmt.Sprint("line ", i))
	}
	stop()
	got := lines(t, path)
	for i, line := range got {
		if line != fmt.Sprint("line ", i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	if written, dropped := l.Counts(); len(got) != queued/2 || written != queued/2 || dropped != 0 {
		t.Errorf("%d lines; %d are said to be written, %d dropped", len(got), written, dropped)
	}
}

// logrotate renames the file, and some remove it.
func TestLog_GoesOnInANewFile(t *testing.T) {
	for name, away := range map[string]func(path string) error{
		"renamed": func(path string) error { return os.Rename(path, path+".1") },
		"removed": os.Remove,
		"in a new directory": func(path string) error {
			if err := os.Rename(filepath.Dir(path), filepath.Dir(path)+".old"); err != nil {
				return err
			}
			return os.Mkdir(filepath.Dir(path), 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "logs", "log")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			l, stop := running(t, path)
			put(l, "before")
			for n := uint64(0); n == 0; n, _ = l.Counts() {
				<-time.After(time.Millisecond)
			}
			if err := away(path); err != nil {
				t.Fatal(err)
			}
			for i := 0; ; i++ {
				put(l, fmt.Sprint("after ", i))
				<-time.After(10 * time.Millisecond)
				if _, err := os.Stat(path); err == nil {
					break
				}
				if i > 1000 {
					t.Fatal("no new file")
				}
			}
			put(l, "last")
			stop()
			got := lines(t, path)
			if got[0] == "before" || got[len(got)-1] != "last" {
				t.Errorf("the new file has %q", got)
			}
			if _, dropped := l.Counts(); dropped != 0 {
				t.Errorf("%d lines were dropped", dropped)
			}
		})
	}
}

// Nobody waits for a disk: without room lines are dropped, and counted.
func TestLog_DropsWhatFindsNoRoom(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "log"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range queued + 10 { // nothing writes
		put(l, "line")
	}
	if _, dropped := l.Counts(); dropped != 10 {
		t.Errorf("%d lines were dropped, of 10 too many", dropped)
	}
}

// /dev/full answers like a disk without space.
func TestLog_CountsWhatCannotBeWritten(t *testing.T) {
	l, stop := running(t, "/dev/full")
	put(l, "line")
	stop()
	if written, dropped := l.Counts(); written != 0 || dropped != 1 {
		t.Errorf("%d written, %d dropped", written, dropped)
	}
}

// Two processes write to one file while one takes over from the other.
func TestLog_TwoWriteToOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	a, stopA := running(t, path)
	b, stopB := running(t, path)
	for i := range 1000 {
		put(a, fmt.Sprint("a", i, strings.Repeat("x", 100)))
		put(b, fmt.Sprint("b", i, strings.Repeat("y", 100)))
	}
	stopA()
	stopB()
	seen := map[string]bool{}
	for _, line := range lines(t, path) {
		seen[line] = true
	}
	for i := range 1000 {
		if !seen[fmt.Sprint("a", i, strings.Repeat("x", 100))] || !seen[fmt.Sprint("b", i, strings.Repeat("y", 100))] {
			t.Fatalf("line %d is not whole", i)
		}
	}
}

func TestOpen_SaysWhatIsWrong(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "no", "log"), nil); err == nil {
		t.Error("a directory that is not there is no error")
	}
}
