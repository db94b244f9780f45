package kube

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spillway-dev/spillway"
)

// defaultLines is how many lines are told that are there already, when a query names no number.
const defaultLines = 100

// longestLine is how much of one line of a log is told.
const longestLine = 64 << 10

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
	most := cmp.Or(q.Lines, defaultLines)
	var lines []spillway.LogLine
	last := map[string]time.Time{}
	for _, pod := range pods {
		tail := int64(most)
		err := p.read(ctx, pod, &corev1.PodLogOptions{TailLines: &tail, Timestamps: true}, func(l spillway.LogLine) error {
			lines = append(lines, l)
			last[pod.Name] = l.At
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.SortStableFunc(lines, func(a, b spillway.LogLine) int { return a.At.Compare(b.At) })
	for _, l := range lines[max(0, len(lines)-most):] {
		if err := line(l); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	return p.followLogs(ctx, ref, q, last, line)
}

// written are the pods whose lines a query is about.
func (p *Platform) written(ctx context.Context, ref spillway.Ref, q spillway.LogQuery) ([]corev1.Pod, error) {
	if _, err := p.there(ctx, ref); err != nil { // waits for the cache
		return nil, err
	}
	pods, err := p.pods(ctx, ref)
	return slices.DeleteFunc(pods, func(pod corev1.Pod) bool {
		g, _ := groupOf(pod.Labels)
		service := cmp.Or(g.Service, pod.Labels["spillway.dev/task"])
		return q.Service != "" && service != q.Service || q.Release != 0 && g.Release != q.Release || q.Replica != "" && pod.Name != q.Replica
	}), err
}

// followLogs tells lines as they are written, of pods that come later too.
func (p *Platform) followLogs(ctx context.Context, ref spillway.Ref, q spillway.LogQuery, last map[string]time.Time, line func(spillway.LogLine) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers sync.WaitGroup
	defer readers.Wait()
	var mu sync.Mutex // one line at a time
	tell := func(l spillway.LogLine) error {
		mu.Lock()
		defer mu.Unlock()
		return line(l)
	}
	look := make(chan struct{}, 1)
	look <- struct{}{}
	// followLogs owns it and waits; it ends with ctx.
	readers.Go(func() {
		_ = p.Watch(ctx, func(app spillway.Ref) { // fails with ctx only
			if app == ref {
				select {
				case look <- struct{}{}:
				default:
				}
			}
		})
	})
	reading := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look:
		}
		pods, err := p.written(ctx, ref, q)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			if reading[pod.Name] || !started(&pod) {
				continue
			}
			reading[pod.Name] = true
			options := &corev1.PodLogOptions{Follow: true, Timestamps: true}
			after := last[pod.Name]
			if !after.IsZero() {
				options.SinceTime = &metav1.Time{Time: after}
			}
			// followLogs owns it and waits; it ends with the pod's program, or with ctx.
			readers.Go(func() {
				err := p.read(ctx, pod, options, func(l spillway.LogLine) error {
					if !l.At.After(after) {
						return nil // told before
					}
					return tell(l)
				})
				if err != nil {
					cancel(err)
				}
			})
		}
	}
}

// started reports whether a pod has written anything that can be read.
func started(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Waiting == nil || c.RestartCount > 0 })
}

// read tells the lines of one pod. A pod that is gone, or has not begun to write, has none.
func (p *Platform) read(ctx context.Context, pod corev1.Pod, options *corev1.PodLogOptions, line func(spillway.LogLine) error) error {
	stream, err := p.typed.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).Stream(ctx)
	if apierrors.IsNotFound(err) || apierrors.IsBadRequest(err) {
		return nil
	}
	if err != nil {
		return explain("read the log of "+pod.Name, err)
	}
	defer stream.Close()
	g, _ := groupOf(pod.Labels)
	reader := bufio.NewReaderSize(stream, longestLine)
	for {
		text, long, err := reader.ReadLine()
		for long && err == nil {
			_, long, err = reader.ReadLine() // the rest of what is too long
		}
		if err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return explain("read the log of "+pod.Name, err)
		}
		at, words, _ := strings.Cut(string(text), " ")
		when, _ := time.Parse(time.RFC3339Nano, at)
		if err := line(spillway.LogLine{At: when, Replica: pod.Name, Group: g, Stream: "stdout", Text: words}); err != nil {
			return err
		}
	}
}
