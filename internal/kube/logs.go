package kube

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// defaultLines is how many lines are told that are there already, when a query names no number.
const defaultLines = 100

// The bounds of what one query reads and holds: logs may have gigabytes.
const (
	mostLines   = 10_000          // that are there already
	mostBytes   = 16 << 20        // of them
	mostPods    = 100             // that are read
	longestLine = 64 << 10        // what is told of one line
	podTime     = 5 * time.Second // for what one pod wrote already
)

// narrower is how to ask for what was left out.
const narrower = "; ask for less: --service, --release or --replica; or the cluster: kubectl logs"

// Logs tells the lines that the pods of an app wrote, oldest first, and with Follow those that they write from then
// on. What the cluster threw away with a pod cannot be told. It ends with ctx or with the first error of line.
func (p *Platform) Logs(ctx context.Context, ref spillway.Ref, q spillway.LogQuery, line func(spillway.LogLine) error) error {
	pods, err := p.written(ctx, ref, q)
	if err != nil {
		return err
	}
	if len(pods) == 0 && (q.Service != "" || q.Replica != "" || q.Release != 0) {
		return fmt.Errorf("no replica of %s is named so (service %q, release %d, replica %q): %w", ref, q.Service, q.Release, cmp.Or(q.Replica, "any"), spillway.ErrNotFound)
	}
	all := newest{most: min(cmp.Or(q.Lines, defaultLines), mostLines)}
	tails, notes, err := p.history(ctx, pods, &all)
	if err != nil {
		return err
	}
	if q.Lines > mostLines {
		notes = append(notes, fmt.Sprintf("no more than the newest %d lines are told%s", mostLines, narrower))
	}
	if all.cut {
		notes = append(notes, fmt.Sprintf("older lines are left out: no more than %d MiB are told%s", mostBytes>>20, narrower))
	}
	for _, text := range notes {
		if err := line(note(text)); err != nil {
			return err
		}
	}
	for _, l := range all.lines {
		if err := line(l); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	all = newest{} // following takes long
	return p.followLogs(ctx, ref, q, tails, line)
}

// note is what is said about the lines.
func note(text string) spillway.LogLine {
	return spillway.LogLine{At: time.Now().UTC(), Stream: spillway.StreamNote, Text: text}
}

// written are the pods whose lines a query is about, the youngest first.
func (p *Platform) written(ctx context.Context, ref spillway.Ref, q spillway.LogQuery) ([]corev1.Pod, error) {
	there, err := p.there(ctx, ref) // waits for the cache
	if err != nil {
		return nil, err
	}
	pods, err := p.pods(ctx, ref)
	pods = slices.DeleteFunc(pods, func(pod corev1.Pod) bool {
		return q.Service != "" && serviceIn(&pod) != q.Service || q.Release != 0 && releaseIn(&pod, there) != q.Release || q.Replica != "" && pod.Name != q.Replica
	})
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	return pods, err
}

// serviceIn is the service that a pod runs, and the name of the container in it that does.
func serviceIn(pod *corev1.Pod) string {
	g, _ := groupOf(pod.Labels)
	return cmp.Or(g.Service, pod.Labels["spillway.dev/task"])
}

// releaseIn is the release whose program a pod runs: that of its group, or of the release command that it is.
func releaseIn(pod *corev1.Pod, there map[string]client.Object) int {
	if g, ok := groupOf(pod.Labels); ok {
		return g.Release
	}
	var t rollout.Task
	if job, ok := there["Job/"+pod.Labels[batchv1.JobNameLabel]]; ok {
		is := job.GetAnnotations()
		if json.Unmarshal([]byte(cmp.Or(is[taskAnnotation], is[pastAnnotation])), &t) == nil {
			return t.Release
		}
	}
	return 0
}

// history collects what the pods wrote already, and gives how far each was read and what was left out.
func (p *Platform) history(ctx context.Context, pods []corev1.Pod, all *newest) (tails map[types.UID]*tail, notes []string, err error) {
	tails, now := map[types.UID]*tail{}, time.Now()
	for i := range pods {
		t := &tail{taken: instanceOf(&pods[i])}
		tails[pods[i].UID] = t
		if i >= mostPods {
			t.told.at = now // only what comes
			continue
		}
		one := newest{most: all.most}
		failed := p.readAll(ctx, &pods[i], t, &one)
		switch {
		case ctx.Err() != nil, errors.Is(failed, spillway.ErrDenied), failed != nil && len(pods) == 1:
			return nil, nil, failed
		case failed != nil: // its node may be away
			notes = append(notes, fmt.Sprintf("not all that %s wrote is told: %s", pods[i].Name, spillway.Text(failed)))
		}
		all.merge(one)
	}
	if len(pods) > mostPods {
		notes = append(notes, fmt.Sprintf("of %d replicas the youngest %d are told%s", len(pods), mostPods, narrower))
	}
	return tails, notes, nil
}

// readAll reads the newest lines that a pod wrote, in its life before the last restart too.
func (p *Platform) readAll(ctx context.Context, pod *corev1.Pod, t *tail, into *newest) error {
	ctx, cancel := context.WithTimeoutCause(ctx, podTime, fmt.Errorf("it does not come within %s: %w", podTime, spillway.ErrUnavailable))
	defer cancel()
	most := int64(into.most)
	collect := func(l spillway.LogLine) error { into.add(l); return nil }
	if t.taken.restarts > 0 {
		if err := p.read(ctx, pod, &corev1.PodLogOptions{TailLines: &most, Previous: true}, &t.told, collect); err != nil {
			return err
		}
	}
	return p.read(ctx, pod, &corev1.PodLogOptions{TailLines: &most}, &t.told, collect)
}

// newest are the newest lines of those that were added, oldest first.
type newest struct {
	most  int // lines; they have no more than mostBytes together
	lines []spillway.LogLine
	bytes int
	cut   bool // there would be more if not for the bytes
}

// add adds a line that is newer than all others.
func (n *newest) add(l spillway.LogLine) {
	n.lines = append(n.lines, l)
	n.bytes += len(l.Text)
	for len(n.lines) > n.most || n.bytes > mostBytes {
		n.cut = n.cut || len(n.lines) <= n.most
		n.bytes -= len(n.lines[0].Text)
		n.lines[0] = spillway.LogLine{} // what is under the slice is held
		n.lines = n.lines[1:]
	}
}

// merge adds lines of another pod.
func (n *newest) merge(other newest) {
	lines := slices.Concat(n.lines, other.lines)
	slices.SortStableFunc(lines, func(a, b spillway.LogLine) int { return a.At.Compare(b.At) })
	n.lines, n.bytes, n.cut = nil, 0, n.cut || other.cut
	for _, l := range lines {
		n.add(l)
	}
}

// told is up to where the lines of a pod were told: all before a moment, and so many of it.
type told struct {
	at   time.Time
	same int
}

// since reports of the lines of one stream, one after the other, whether they have to be told, and counts them as told.
func (t *told) since() func(at time.Time) bool {
	from := *t
	return func(at time.Time) bool {
		if at.Before(from.at) {
			return false
		}
		if at.Equal(from.at) && from.same > 0 {
			from.same--
			return false
		}
		if at.After(t.at) {
			t.at, t.same = at, 0
		}
		if at.Equal(t.at) {
			t.same++
		}
		return true
	}
}

// read tells the lines of one pod that were not told yet. A pod that is gone, or has not begun to write, has none.
func (p *Platform) read(ctx context.Context, pod *corev1.Pod, options *corev1.PodLogOptions, t *told, line func(spillway.LogLine) error) error {
	options.Container, options.Timestamps = serviceIn(pod), true // others may be put beside it
	if !t.at.IsZero() {
		options.SinceTime = &metav1.Time{Time: t.at} // which is sent without its fraction of a second
	}
	stream, err := p.typed.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).Stream(ctx)
	switch {
	case err == nil:
	case apierrors.IsNotFound(err), apierrors.IsBadRequest(err):
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return explain("read the log of "+pod.Name, err)
	}
	defer stream.Close()
	g, _ := groupOf(pod.Labels)
	reader, fresh := bufio.NewReaderSize(stream, longestLine), t.since()
	for {
		text, err := readLine(reader)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			return explain("read the log of "+pod.Name, err)
		}
		at, words, _ := strings.Cut(text, " ")
		when, _ := time.Parse(time.RFC3339Nano, at)
		if !fresh(when) {
			continue
		}
		if err := line(spillway.LogLine{At: when, Replica: pod.Name, Group: g, Stream: "stdout", Text: words}); err != nil {
			return err
		}
	}
}

// readLine reads a line, and says how much of one that is too long is left out.
func readLine(r *bufio.Reader) (string, error) {
	part, more, err := r.ReadLine()
	text, left := string(part), 0
	for more && err == nil {
		part, more, err = r.ReadLine()
		left += len(part)
	}
	if left > 0 {
		text += fmt.Sprintf(" … and %d bytes more", left)
	}
	return text, err
}
