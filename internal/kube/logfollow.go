package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/spillway-dev/spillway"
)

// takeUpAfter is how long after its end the log of a pod is taken up again: by then the cluster tells whether its program
// ended, and one that cannot be read is not asked for all the time.
const takeUpAfter = time.Second

// tail is how far the log of a pod was read.
type tail struct {
	told   told
	taken  instance // the last that was read
	busy   bool     // it is being read
	failed int      // how often that failed, one after the other
}

// instance is one life of the program of a pod.
type instance struct {
	restarts int32
	running  bool
}

// instanceOf is the present one; zero when there was none yet.
func instanceOf(pod *corev1.Pod) instance {
	c := program(pod)
	return instance{restarts: c.RestartCount, running: c.State.Running != nil}
}

// program is the status of the container that runs a pod's service; zero when there is none.
func program(pod *corev1.Pod) (c corev1.ContainerStatus) {
	name := serviceIn(pod)
	if i := slices.IndexFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == name }); i >= 0 {
		c = pod.Status.ContainerStatuses[i]
	}
	return c
}

// due reports whether a pod has something to read: its program runs, or is in another life than the one that was read.
func (t *tail) due(pod *corev1.Pod) bool {
	now := instanceOf(pod)
	return !t.busy && (now.running || now != t.taken || t.failed > 0)
}

// follower tells the lines of an app as they are written.
type follower struct {
	p      *Platform
	cancel context.CancelCauseFunc
	tails  map[types.UID]*tail
	busy   int  // tails that are read
	left   bool // it was said that some are not

	mu   sync.Mutex // one line at a time
	line func(spillway.LogLine) error
}

// followLogs tells lines as they are written, of pods that come later too.
func (p *Platform) followLogs(ctx context.Context, ref spillway.Ref, q spillway.LogQuery, tails map[types.UID]*tail, line func(spillway.LogLine) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel(nil) // before it waits for them
	f := &follower{p: p, cancel: cancel, tails: tails, line: line}
	look, ended := make(chan struct{}, 1), make(chan *tail)
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
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case t := <-ended:
			t.busy = false
			f.busy--
		case <-look:
		}
		pods, err := p.written(ctx, ref, q)
		if err != nil {
			return err
		}
		for i := range pods {
			t, pod := f.next(&pods[i]), pods[i]
			if t == nil {
				continue
			}
			// followLogs owns it and waits; it ends soon after the pod's program, or with ctx.
			readers.Go(func() {
				f.take(ctx, &pod, t)
				select {
				case <-ctx.Done():
					return
				case <-time.After(takeUpAfter):
				}
				select {
				case <-ctx.Done():
				case ended <- t:
				}
			})
		}
		f.forget(pods)
	}
}

// next gives the tail of a pod that is to be read now, as busy; nil = it is not.
func (f *follower) next(pod *corev1.Pod) *tail {
	t := f.tails[pod.UID]
	if t == nil {
		t = &tail{}
		f.tails[pod.UID] = t
	}
	if !t.due(pod) {
		return nil
	}
	if f.busy == mostPods {
		if !f.left {
			f.left = true
			_ = f.tell(note(fmt.Sprintf("only %d replicas are followed at once, and there are more%s", mostPods, narrower))) // its error ends all
		}
		return nil
	}
	t.busy = true
	f.busy++
	return t
}

// forget lets the tails of pods go that are gone.
func (f *follower) forget(pods []corev1.Pod) {
	there := map[types.UID]bool{}
	for i := range pods {
		there[pods[i].UID] = true
	}
	maps.DeleteFunc(f.tails, func(uid types.UID, t *tail) bool { return !there[uid] && !t.busy })
}

// tell tells a line; an error ends all.
func (f *follower) tell(l spillway.LogLine) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.line(l)
	if err != nil {
		f.cancel(err)
	}
	return err
}

// take tells what a pod wrote since it was read last, in its life before the last restart too, and what it writes until its
// program ends. What fails is tried again, but for what this server may not do.
func (f *follower) take(ctx context.Context, pod *corev1.Pod, t *tail) {
	now := instanceOf(pod)
	var err error
	if now.restarts > t.taken.restarts {
		if lost(pod, t) {
			_ = f.tell(note(fmt.Sprintf("%s was restarted %d times meanwhile, and the cluster keeps what it wrote before the last of them only", pod.Name, now.restarts-t.taken.restarts)))
		}
		err = f.p.read(ctx, pod, &corev1.PodLogOptions{Previous: true}, &t.told, f.tell)
	}
	if err == nil {
		err = f.p.read(ctx, pod, &corev1.PodLogOptions{Follow: true}, &t.told, f.tell)
	}
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, spillway.ErrDenied):
		f.cancel(err)
	case err == nil:
		t.taken, t.failed = now, 0
	default:
		if t.failed++; t.failed == 2 { // once is a connection that broke
			_ = f.tell(note(spillway.Text(err) + "; it is tried again"))
		}
	}
}

// lost reports whether a pod had lives between the one that was read and the last one that the cluster keeps.
func lost(pod *corev1.Pod, t *tail) bool {
	c := program(pod)
	ended := c.LastTerminationState.Terminated
	return c.RestartCount > t.taken.restarts+1 && ended != nil && !t.told.at.IsZero() && t.told.at.Before(ended.StartedAt.Time)
}
