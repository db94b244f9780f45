package local

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spillway-dev/spillway"
)

// keepLogs is how many groups of a service keep their log after they are gone.
const keepLogs = 5

// logs is the output of all groups of one app.
type logs struct {
	dir  string // …/apps/REF/logs
	tune tuning

	mu    sync.Mutex
	books map[spillway.Group]*logbook
	users map[*logbook]int
	news  chan struct{} // closed and replaced when lines were added
}

func newLogs(dir string, t tuning) *logs {
	return &logs{dir: dir, tune: t, books: map[spillway.Group]*logbook{}, users: map[*logbook]int{}, news: make(chan struct{})}
}

// book opens the log of a group for one writer, who calls done at the end. A group that is new lets the
// oldest ones of its service go.
func (l *logs) book(g spillway.Group) (*logbook, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.books[g]; b != nil {
		l.users[b]++
		return b, nil
	}
	b, err := openLogbook(filepath.Join(l.dir, g.String()), l.tune)
	if err != nil {
		return nil, err
	}
	l.books[g], l.users[b] = b, 1
	l.prune(g.Service)
	return b, nil
}

// prune removes the logs of old groups of a service that nothing writes to.
func (l *logs) prune(service string) {
	groups := l.groups(spillway.LogQuery{Service: service})
	for _, g := range groups[:max(0, len(groups)-keepLogs)] {
		if l.books[g] == nil {
			_ = os.RemoveAll(filepath.Join(l.dir, g.String())) // what is left is tried again with the next group
		}
	}
}

// done says that one writer of a group's log is ready. The last one closes it.
func (l *logs) done(g spillway.Group) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[g]
	if l.users[b]--; b == nil || l.users[b] > 0 {
		return nil
	}
	delete(l.users, b)
	delete(l.books, g)
	return b.close()
}

// added wakes those who follow.
func (l *logs) added() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.news)
	l.news = make(chan struct{})
}

func (l *logs) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news
}

// groups lists the groups that have a log and that the query selects, in order.
func (l *logs) groups(q spillway.LogQuery) []spillway.Group {
	entries, _ := os.ReadDir(l.dir) // no directory: no log yet
	var groups []spillway.Group
	for _, e := range entries {
		g, ok := parseGroup(e.Name())
		if ok && (q.Service == "" || q.Service == g.Service) && (q.Release == 0 || q.Release == g.Release) {
			groups = append(groups, g)
		}
	}
	slices.SortFunc(groups, func(a, b spillway.Group) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Release, b.Release))
	})
	return groups
}

// parseGroup reads "www.4".
func parseGroup(s string) (spillway.Group, bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 1 {
		return spillway.Group{}, false
	}
	n, err := strconv.Atoi(s[i+1:])
	return spillway.Group{Service: s[:i], Release: n}, err == nil
}

// position is how far a reader got in the log of one group.
type position struct {
	segment int
	offset  int64
}

// line makes of an entry what people see.
func (e entry) line(g spillway.Group) spillway.LogLine {
	return spillway.LogLine{At: e.At, Replica: e.Replica, Group: g, Stream: e.Stream, Text: e.Text}
}

// newest gives the last n lines of a group that the query selects, and the position behind them.
func (l *logs) newest(g spillway.Group, q spillway.LogQuery, n int) (lines []spillway.LogLine, p position, err error) {
	dir := filepath.Join(l.dir, g.String())
	numbers, err := segmentsIn(dir)
	for i := len(numbers) - 1; i >= 0 && len(lines) < n && err == nil; i-- {
		var found []spillway.LogLine
		var end int64
		end, err = readSegment(segmentPath(dir, numbers[i]), 0, func(e entry) error {
			if q.Replica == "" || q.Replica == e.Replica {
				found = append(found, e.line(g))
			}
			return nil
		})
		if i == len(numbers)-1 {
			p = position{segment: numbers[i], offset: end}
		}
		if missing(err) {
			err = nil // it has just been removed for its age
			break
		}
		lines = append(found, lines...)
	}
	return lines[max(0, len(lines)-n):], p, err
}

// since calls line for everything behind the position and gives the new position.
func (l *logs) since(g spillway.Group, q spillway.LogQuery, p position, line func(spillway.LogLine) error) (position, error) {
	dir := filepath.Join(l.dir, g.String())
	numbers, err := segmentsIn(dir)
	if err != nil {
		return p, err
	}
	for _, n := range numbers {
		if n < p.segment {
			continue
		}
		if n > p.segment {
			p = position{segment: n}
		}
		p.offset, err = readSegment(segmentPath(dir, n), p.offset, func(e entry) error {
			if q.Replica != "" && q.Replica != e.Replica {
				return nil
			}
			return line(e.line(g))
		})
		if err != nil && !missing(err) {
			return p, err
		}
	}
	return p, nil
}

// tell gives the newest lines of all selected groups by time, then with Follow everything that comes.
func (l *logs) tell(ctx context.Context, q spillway.LogQuery, line func(spillway.LogLine) error) error {
	n := q.Lines
	if n == 0 {
		n = 100
	}
	news := l.next() // before reading: what is added meanwhile is not missed
	positions := map[spillway.Group]position{}
	var all []spillway.LogLine
	for _, g := range l.groups(q) {
		lines, p, err := l.newest(g, q, n)
		if err != nil {
			return err
		}
		positions[g] = p
		all = append(all, lines...)
	}
	slices.SortStableFunc(all, func(a, b spillway.LogLine) int { return a.At.Compare(b.At) })
	for _, x := range all[max(0, len(all)-n):] {
		if err := line(x); err != nil {
			return err
		}
	}
	for q.Follow {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		}
		news = l.next()
		for _, g := range l.groups(q) {
			p, err := l.since(g, q, positions[g], line)
			if err != nil {
				return err
			}
			positions[g] = p
		}
	}
	return nil
}
