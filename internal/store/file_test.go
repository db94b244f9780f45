package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/store"
)

// childVariable makes the test program save in a loop to the directory that it names.
const childVariable = "SPILLWAY_TEST_SAVE_TO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		fmt.Println("error:", saveForever(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// saveForever saves one event with each version, and prints each version that was saved.
func saveForever(dir string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, dir)
	if err != nil {
		return err
	}
	saved, err := s.Load(ctx, "castle")
	for version := saved.Version; err == nil; version++ {
		status := fullStatus()
		status.Route.Generation = version + 1
		if err = s.Save(ctx, "castle", version, status, events(1)); err == nil {
			fmt.Println(version + 1)
		}
	}
	return err
}

func TestSave_SurvivesKillAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	add(t, s, "castle")
	check(t, s.Close())
	for round := range 15 {
		acknowledged := killWhileSaving(t, dir, 1+rand.IntN(20))
		s := open(t, dir)
		saved, err := s.Load(t.Context(), "castle")
		check(t, err)
		history, err := s.Events(t.Context(), "castle", spillway.EventQuery{Limit: store.KeptEvents})
		check(t, err)
		if saved.Version < acknowledged {
			t.Errorf("round %d: version %d was acknowledged, %d is saved", round, acknowledged, saved.Version)
		}
		if int(saved.Version) != len(history) || saved.Status.Route.Generation != saved.Version {
			t.Errorf("round %d: version %d, generation %d, %d events; want them equal", round, saved.Version, saved.Status.Route.Generation, len(history))
		}
		check(t, s.Close())
	}
}

// killWhileSaving kills a saving process after it told of n versions, and gives the last it told of.
func killWhileSaving(t *testing.T, dir string, n int) (version int64) {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	child := exec.Command(self)
	child.Env = append(os.Environ(), childVariable+"="+dir)
	out, err := child.StdoutPipe()
	check(t, err)
	check(t, child.Start())
	lines := bufio.NewScanner(out)
	for told := 0; lines.Scan(); told++ {
		version, err = strconv.ParseInt(lines.Text(), 10, 64)
		check(t, err)
		if told == n {
			check(t, child.Process.Kill())
		}
	}
	if err := child.Wait(); err == nil || child.ProcessState.ExitCode() != -1 {
		t.Fatalf("the saving process ended by itself: %v", err)
	}
	return version
}

// What is written must be on the disk before Save returns. A test cannot take the power away, but it can
// see that the database was told so.
func TestOpen_SynchronisesFully(t *testing.T) {
	s := open(t, t.TempDir())
	for name, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
		got, err := s.Setting(t.Context(), name)
		if err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestOpen_RefusesADirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, err := store.Open(t.Context(), dir)
	if !errors.Is(err, spillway.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v, want ErrConflict with the directory and our pid", err)
	}
	check(t, s.Close())
	open(t, dir)
}

// The lock of a killed server goes on for a moment in the child that it was just starting.
func TestOpen_WaitsForALockThatIsAboutToGo(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "lock"))
	check(t, err)
	check(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	closed := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() { closed <- f.Close() })
	open(t, dir)
	check(t, <-closed)
}

func TestOpen_RefusesANewerFormatAndLeavesTheFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	check(t, s.Do(t.Context(), "PRAGMA user_version = 7"))
	check(t, s.Close())
	before := read(t, dir, store.FileName)
	_, err := store.Open(t.Context(), dir)
	want := fmt.Sprintf("state directory %s was written by a newer Spillway (format 7, this one reads up to 1); use that version or another --dir: conflict", dir)
	if !errors.Is(err, spillway.ErrConflict) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if read(t, dir, store.FileName) != before {
		t.Error("the file was changed")
	}
}

func TestOpen_RefusesTheDatabaseOfAnotherProgram(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	check(t, s.Do(t.Context(), "PRAGMA user_version = 0"))
	check(t, s.Close())
	if _, err := store.Open(t.Context(), dir); !errors.Is(err, spillway.ErrConflict) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("got %v, want ErrConflict", err)
	}
}

func TestOpen_RefusesADamagedFileAndLeavesIt(t *testing.T) {
	whole := t.TempDir()
	s := open(t, whole)
	add(t, s, "castle")
	check(t, s.AppendEvents(t.Context(), "castle", events(200)))
	check(t, s.Close())
	good := read(t, whole, store.FileName)
	for name, content := range map[string]string{
		"not a database": strings.Repeat("this is no database\n", 300),
		"cut short":      good[:len(good)/2],
		"middle lost":    good[:4096*3] + strings.Repeat("\xee", 4096*3) + good[4096*6:],
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			check(t, os.WriteFile(filepath.Join(dir, store.FileName), []byte(content), 0o600))
			_, err := store.Open(t.Context(), dir)
			if err == nil || strings.Count(err.Error(), "damaged") != 1 || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dir) {
				t.Fatalf("got %v, want an error that names the file as damaged", err)
			}
			if read(t, dir, store.FileName) != content {
				t.Error("the file was changed")
			}
		})
	}
}

func TestOpen_TakesAnyDirectoryName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "what? 100% #1 & ü")
	s := open(t, dir)
	add(t, s, "castle")
	check(t, s.Close())
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, store.FileName): 0o600} {
		info, err := os.Stat(path)
		check(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
	}
}

// The stored file was written by the first format. It must be readable forever.
func TestOpen_ReadsAStoredFileOfVersion1(t *testing.T) {
	const stored = "testdata/v1.db"
	if *update {
		writeStored(t, stored)
	}
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, store.FileName), []byte(read(t, stored)), 0o600))
	s := open(t, dir)
	saved, err := s.Load(t.Context(), "castle")
	check(t, err)
	if saved.Version != 1 || saved.Status.Stable != 1 || saved.Status.Route.Generation != 9 {
		t.Errorf("version %d, status %s", saved.Version, text(t, saved.Status))
	}
	if got := string(saved.Status.Route.Trial.Memory); got != string(fullStatus().Route.Trial.Memory) {
		t.Errorf("memory %s", got)
	}
	if len(saved.Spec.Releases) != 2 || saved.Spec.Releases[2].Config.Services[0].Host[0] != "www.castle.localhost" {
		t.Errorf("releases %s", text(t, saved.Spec.Releases))
	}
	if len(saved.Spec.Intents) != 1 || saved.Spec.Intents[0].Seq != 2 {
		t.Errorf("open intents %+v, want that with seq 2", saved.Spec.Intents)
	}
	history, err := s.Events(t.Context(), "castle", spillway.EventQuery{})
	check(t, err)
	for i := range history {
		history[i].ID, history[i].App = 0, ""
	}
	if !reflect.DeepEqual(history, events(3)) {
		t.Errorf("events %+v", history)
	}
	check(t, s.Save(t.Context(), "castle", 1, rollout.Status{}, events(1)))
}

func writeStored(t *testing.T, path string) {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir)
	add(t, s, "castle")
	add(t, s, "castle")
	check(t, s.Save(t.Context(), "castle", 0, fullStatus(), events(3)))
	check(t, s.Close())
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, []byte(read(t, dir, store.FileName)), 0o644))
}
