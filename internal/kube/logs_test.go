package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/spillway-dev/spillway"
)

// life is what a program wrote from one start to its end.
type life struct {
	lines []string
	over  bool
}

// kubelet answers for the logs of pods as an API server does. It keeps all lives, and gives the last two.
type kubelet struct {
	t *testing.T
	p *Platform
	c client.Client

	mu    sync.Mutex
	pods  map[string][]*life
	news  chan struct{} // closed and replaced when something is different
	down  map[string]bool
	cuts  int          // how often all streams were cut
	asked []url.Values // of every request
	lists error        // of every look at the pods
}

type synced struct{ cache.Cache }

func (synced) WaitForCacheSync(context.Context) bool { return true }

func newKubelet(t *testing.T) *kubelet {
	t.Helper()
	k := &kubelet{t: t, pods: map[string][]*life{}, news: make(chan struct{}), down: map[string]bool{}}
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	k.p = &Platform{conf: Config{Namespace: "shop"}, cache: synced{}}
	b := fake.NewClientBuilder().WithScheme(scheme)
	for _, kind := range append(k.p.kinds(), &corev1.Pod{}) {
		b.WithIndex(kind, appIndex, func(o client.Object) []string { return []string{o.GetLabels()[AppLabel]} })
	}
	k.c = interceptor.NewClient(b.Build(), interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		return errors.Join(k.lists, c.List(ctx, list, opts...))
	}})
	k.p.client = k.c
	if k.p.typed, err = kubernetes.NewForConfig(&rest.Config{Host: "http://cluster.test", Transport: k, QPS: -1}); err != nil {
		t.Fatal(err)
	}
	return k
}

// runs has a pod of www.1 be there, after so many restarts.
func (k *kubelet) runs(name string, restarts int) {
	k.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Labels: labels("castle", spillway.Group{Service: "www", Release: 1})}}
	if err := k.c.Create(k.t.Context(), pod); err != nil {
		k.t.Fatal(err)
	}
	k.mu.Lock()
	for range restarts {
		k.pods[name] = append(k.pods[name], &life{over: true})
	}
	k.pods[name] = append(k.pods[name], &life{})
	k.mu.Unlock()
	k.tells(name)
}

// tells has the cluster tell how the program of a pod is.
func (k *kubelet) tells(name string) {
	k.t.Helper()
	var pod corev1.Pod
	if err := k.c.Get(k.t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, &pod); err != nil {
		k.t.Fatal(err)
	}
	k.mu.Lock()
	lives := k.pods[name]
	k.mu.Unlock()
	c := corev1.ContainerStatus{Name: "www", RestartCount: int32(len(lives) - 1)}
	if last := lives[len(lives)-1]; last.over {
		c.State.Terminated = &corev1.ContainerStateTerminated{}
	} else {
		c.State.Running = &corev1.ContainerStateRunning{}
	}
	if c.RestartCount > 0 {
		c.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{StartedAt: metav1.Now()}
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a-sidecar", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}, c}
	if err := k.c.Status().Update(k.t.Context(), &pod); err != nil {
		k.t.Fatal(err)
	}
	k.p.watchers.Changed("castle")
}

// change does something to the last life of a pod, and wakes those who follow.
func (k *kubelet) change(name string, do func(*life)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if lives := k.pods[name]; len(lives) > 0 {
		do(lives[len(lives)-1])
	}
	close(k.news)
	k.news = make(chan struct{})
}

// writes has the program of a pod write lines, all in this moment.
func (k *kubelet) writes(name string, lines ...string) {
	k.change(name, func(l *life) {
		for _, text := range lines {
			l.lines = append(l.lines, time.Now().UTC().Format(time.RFC3339Nano)+" "+text)
		}
	})
}

// ends ends the program of a pod; begins starts it anew. Nobody is told of either.
func (k *kubelet) ends(name string) { k.change(name, func(l *life) { l.over = true }) }
func (k *kubelet) begins(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pods[name] = append(k.pods[name], &life{})
}

// cut ends all streams.
func (k *kubelet) cut() {
	k.change("", func(*life) {})
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cuts++
	close(k.news)
	k.news = make(chan struct{})
}

// RoundTrip answers a request for a log.
func (k *kubelet) RoundTrip(r *http.Request) (*http.Response, error) {
	name, q := path.Base(path.Dir(r.URL.Path)), r.URL.Query()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, q)
	answer := func(code int, body io.ReadCloser) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"text/plain"}}, Body: body, Request: r}, nil
	}
	lives := k.pods[name]
	if q.Get("previous") == "true" && len(lives) > 0 {
		lives = lives[:len(lives)-1]
	}
	switch {
	case k.down[name]:
		return answer(http.StatusServiceUnavailable, io.NopCloser(strings.NewReader("no route to the node")))
	case len(lives) == 0 || q.Get("container") != "www" || q.Get("timestamps") != "true":
		return answer(http.StatusBadRequest, http.NoBody)
	}
	out, in := io.Pipe()
	context.AfterFunc(r.Context(), func() { in.CloseWithError(r.Context().Err()) })
	go k.stream(in, lives[len(lives)-1], q, k.cuts) // it ends with the life, or with the request
	return answer(http.StatusOK, out)
}

// stream writes what a life wrote, and writes.
func (k *kubelet) stream(to *io.PipeWriter, l *life, q url.Values, cuts int) {
	defer to.Close()
	from := -1
	for {
		k.mu.Lock()
		if from < 0 {
			tail, err := strconv.Atoi(q.Get("tailLines"))
			if from = 0; err == nil {
				from = max(0, len(l.lines)-tail)
			}
		}
		lines, over, news, cut := slices.Clone(l.lines[from:]), l.over, k.news, k.cuts != cuts
		from = len(l.lines)
		k.mu.Unlock()
		if cut {
			return
		}
		for _, line := range lines {
			at, _, _ := strings.Cut(line, " ")
			if since := q.Get("sinceTime"); since != "" {
				limit, err1 := time.Parse(time.RFC3339, since)
				when, err2 := time.Parse(time.RFC3339Nano, at)
				if err1 != nil || err2 != nil || when.Before(limit) {
					continue
				}
			}
			if _, err := io.WriteString(to, line+"\n"); err != nil {
				return
			}
		}
		if over || q.Get("follow") != "true" {
			return
		}
		<-news
	}
}

// follows begins to follow the logs, and gives what was told. The end of the test ends it.
func (k *kubelet) follows(t *testing.T) func() []string {
	var mu sync.Mutex
	var told []string
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { // the test owns it, and waits below
		ended <- k.p.Logs(ctx, "castle", spillway.LogQuery{Follow: true}, func(l spillway.LogLine) error {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, l.Text)
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		k.cut() // whoever streams hears of it
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}
}

// later lets time pass, so that lines are of another moment, and what waits is done.
func later(d time.Duration) { <-time.After(d) }

// A program that ends and starts again, and a stream that is cut off, lose no line and repeat none.
func TestLogs_AreTakenUpWhereTheyEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKubelet(t)
		k.runs("x", 0)
		k.writes("x", "old")
		told := k.follows(t)
		var want []string
		expect := func(when string, more ...string) {
			t.Helper()
			want = append(want, more...)
			if got := told(); !slices.Equal(got, want) {
				t.Fatalf("%s: told %q, want %q", when, got, want)
			}
		}
		expect("at the start", "old")
		later(time.Millisecond)
		k.writes("x", "new")
		expect("as it is written", "new")

		later(time.Millisecond)
		k.writes("x", "twin")
		expect("before the cut", "twin")
		k.cut()
		k.writes("x", "twin") // in the same moment
		later(2 * takeUpAfter)
		expect("after the cut", "twin")

		k.cut()
		k.writes("x", "last words")
		k.ends("x")
		later(time.Millisecond)
		k.begins("x")
		k.writes("x", "second life")
		k.tells("x")
		later(2 * takeUpAfter)
		expect("after a restart", "last words", "second life")

		k.writes("x", "and its end")
		k.ends("x")
		k.tells("x")
		later(5 * takeUpAfter)
		expect("while it waits to be started", "and its end")
		asked := len(k.asked)
		later(time.Minute)
		if more := len(k.asked) - asked; more > 0 {
			t.Errorf("it was asked for %d times while nothing ran", more)
		}

		for range 2 { // of which the first is thrown away
			k.begins("x")
			later(time.Second)
			k.writes("x", "short life")
			k.ends("x")
		}
		k.begins("x")
		k.tells("x")
		later(2 * takeUpAfter)
		got := told()
		if len(got) != len(want)+2 || !strings.Contains(got[len(want)], "x was restarted 3 times") || got[len(want)+1] != "short life" {
			t.Errorf("after three restarts: told %q", got[len(want):])
		}
	})
}

// A node that does not answer for a while is told once.
func TestLogs_OutlastANodeThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKubelet(t)
		k.runs("x", 0)
		k.runs("y", 0)
		k.writes("x", "1")
		k.down["y"] = true
		told := k.follows(t)
		later(10 * takeUpAfter)
		k.writes("y", "2")
		k.mu.Lock()
		k.down["y"] = false
		k.mu.Unlock()
		later(2 * takeUpAfter)
		got := told()
		if len(got) != 4 || !strings.HasPrefix(got[0], "not all that y wrote is told") || got[1] != "1" || !strings.Contains(got[2], "tried again") || got[3] != "2" || strings.Contains(got[0]+got[2], spillway.ErrUnavailable.Error()) {
			t.Errorf("told %q", got)
		}
	})
}

// What was read before is given up together with what fails.
func TestLogs_EndWhenTheClusterCannotBeSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKubelet(t)
		k.runs("x", 0)
		ended := make(chan error, 1)
		go func() {
			ended <- k.p.Logs(t.Context(), "castle", spillway.LogQuery{Follow: true}, func(spillway.LogLine) error { return nil })
		}()
		synctest.Wait()
		k.mu.Lock()
		k.lists = errors.New("no list")
		k.mu.Unlock()
		k.p.watchers.Changed("castle")
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "no list") {
			t.Error(err)
		}
		k.cut()
	})
}

// Logs of gigabytes are not read as a whole, nor held, and what is left out is said.
func TestLogs_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKubelet(t)
		for i := range mostPods + 1 {
			k.runs(fmt.Sprintf("x%03d", i), 0)
		}
		long := strings.Repeat("a", longestLine+1000)
		for range 2 * mostBytes / longestLine {
			k.writes("x000", long)
		}
		later(time.Second)
		k.writes("x001", "newest")
		var lines, notes []string
		bytes := 0
		err := k.p.Logs(t.Context(), "castle", spillway.LogQuery{Lines: 1e9}, func(l spillway.LogLine) error {
			if l.Stream == spillway.StreamNote {
				notes = append(notes, l.Text)
			} else {
				lines = append(lines, l.Text)
				bytes += len(l.Text)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(k.asked) != mostPods || slices.ContainsFunc(k.asked, func(q url.Values) bool { return q.Get("tailLines") != strconv.Itoa(mostLines) }) {
			t.Errorf("%d requests; the first: %v", len(k.asked), k.asked[0])
		}
		if bytes > mostBytes || bytes < mostBytes/2 || lines[len(lines)-1] != "newest" || !strings.HasSuffix(lines[0], "a … and 1021 bytes more") {
			t.Errorf("%d bytes in %d lines; the first ends in %q, the last is %.20q", bytes, len(lines), lines[0][len(lines[0])-30:], lines[len(lines)-1])
		}
		for _, want := range []string{"of 101 replicas the youngest 100", "no more than the newest 10000 lines", "older lines are left out: no more than 16 MiB"} {
			if !slices.ContainsFunc(notes, func(text string) bool { return strings.Contains(text, want) && strings.Contains(text, "--replica") }) {
				t.Errorf("%q is not in %q", want, notes)
			}
		}
		if len(notes) != 3 {
			t.Errorf("said %q", notes)
		}
	})
}

// A release command is of the release that it is run for.
func TestWritten_KnowsTheReleaseOfACommand(t *testing.T) {
	k := newKubelet(t)
	k.runs("castle-www-1-abc", 0)
	job := releaseJob()
	job.Labels = own("castle")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "castle-www-2-task-5-abc", Labels: own("castle")}}
	pod.Labels[batchv1.JobNameLabel], pod.Labels["spillway.dev/task"] = job.Name, "www"
	for _, o := range []client.Object{job, pod} {
		if err := k.c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for release, want := range map[int][]string{0: {"castle-www-1-abc", pod.Name}, 1: {"castle-www-1-abc"}, 2: {pod.Name}, 3: nil} {
		pods, err := k.p.written(t.Context(), "castle", spillway.LogQuery{Release: release, Service: "www"})
		var names []string
		for _, pod := range pods {
			names = append(names, pod.Name)
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("of release %d: %q, %v; want %q", release, names, err, want)
		}
	}
}

// What a program wrote before its last restart is told too: why it ended.
func TestLogs_BeginBeforeTheLastRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKubelet(t)
		k.runs("x", 0)
		k.writes("x", "why it ended")
		k.ends("x")
		later(time.Second)
		k.begins("x")
		k.writes("x", "one", "two")
		k.tells("x")
		var lines []string
		if err := k.p.Logs(t.Context(), "castle", spillway.LogQuery{Lines: 3}, func(l spillway.LogLine) error { lines = append(lines, l.Text); return nil }); err != nil {
			t.Fatal(err)
		}
		if want := []string{"why it ended", "one", "two"}; !slices.Equal(lines, want) {
			t.Errorf("told %q, want %q", lines, want)
		}
	})
}
