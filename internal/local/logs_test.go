package local_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/local"
)

func TestLogs_LoseAndRepeatNothingAcrossSegmentsAndRestarts(t *testing.T) {
	b := newBench(t)
	b.apply(shop("lines", nil), www(1, 1))
	dir := filepath.Join(b.dir, "local/apps/shop/logs/www.1")
	written := func(n int) func() bool {
		return func() bool {
			entries, err := os.ReadDir(dir)
			return err == nil && len(entries) >= n
		}
	}
	for n := range 3 { // the copying is cut off and goes on
		b.eventually("some segments", written(2*n+2))
		b.cancel()
		<-b.done
		b.open(same)
	}
	all := spillway.LogQuery{Lines: 1 << 20}
	b.eventually("all lines", func() bool {
		lines := b.logs(spillway.LogQuery{Lines: 1})
		return len(lines) > 0 && strings.HasPrefix(lines[len(lines)-1], "line 49999 ")
	})
	lines := b.logs(all)
	if len(lines) != 50_001 {
		t.Errorf("%d lines, want 50001", len(lines))
	}
	for i, line := range lines[1:] {
		if want := fmt.Sprintf("line %d %s", i, strings.Repeat("x", i%40)); line != want {
			t.Fatalf("line %d is %q, want %q", i+1, line, want)
		}
	}
	if !written(10)() {
		t.Error("the log was not divided into segments")
	}
}

func TestLogs_KeepOnlyTheNewestSegments(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, dir: t.TempDir(), router: newRouter()}
	b.open(func(c local.Config) local.Config { return local.FewSegments(c, 3, 32<<10) })
	b.apply(shop("lines", nil), www(1, 1))
	b.eventually("the last line", func() bool {
		lines := b.logs(spillway.LogQuery{Lines: 1})
		return len(lines) == 1 && strings.HasPrefix(lines[0], "line 49999 ")
	})
	b.eventually("three segments", func() bool {
		entries, err := os.ReadDir(filepath.Join(b.dir, "local/apps/shop/logs/www.1"))
		return err == nil && len(entries) == 3
	})
}

func TestLogs_SelectAndFollow(t *testing.T) {
	b := newBench(t)
	b.apply(shop("serve", nil), www(2, 1))
	b.eventually("ready", func() bool { return b.group("www.1").Ready == 2 })
	b.eventually("both lines", func() bool { return len(b.logs(spillway.LogQuery{})) == 2 })
	if lines := b.logs(spillway.LogQuery{Replica: "www.1-2", Service: "www", Release: 1}); !slices.Equal(lines, []string{"starting www.1-2"}) {
		t.Errorf("lines of one replica: %q", lines)
	}
	if lines := b.logs(spillway.LogQuery{Lines: 1}); len(lines) != 1 {
		t.Errorf("newest line: %q", lines)
	}
	for _, q := range []spillway.LogQuery{{Service: "nosuch"}, {Release: 9}, {Replica: "db.1-1"}} {
		if err := b.Logs(t.Context(), "shop", q, nil); !errors.Is(err, spillway.ErrNotFound) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	enough := errors.New("enough")
	var seen []string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := b.Logs(ctx, "shop", spillway.LogQuery{Follow: true}, func(l spillway.LogLine) error {
		seen = append(seen, l.Text)
		if len(seen) == 2 {
			b.ask("www.1-1", "/say?text=hello")
		}
		if l.Text == "hello" {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || len(seen) != 3 {
		t.Errorf("followed %q, %v", seen, err)
	}
}

func TestLogs_CutLongLines(t *testing.T) {
	b := newBench(t)
	b.apply(shop("serve", func(s *spillway.Service) {
		s.Run = spillway.Command{Shell: "head -c 40000 /dev/zero | tr '\\0' y; echo end; exec " + os.Args[0]}
	}), www(1, 1))
	b.eventually("started", func() bool { return slices.Contains(b.logs(spillway.LogQuery{}), "starting www.1-1") })
	lines := b.logs(spillway.LogQuery{})
	if len(lines) != 4 || len(lines[0]) != 16<<10 || len(lines[1]) != 16<<10 || lines[2] != strings.Repeat("y", 40000-32<<10)+"end" {
		t.Errorf("%d lines", len(lines))
	}
}
