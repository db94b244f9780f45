package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// kubeOptions are the flags of the benchmark on a cluster.
type kubeOptions struct {
	config, registry, spillway, argo string
	apps, compared, rounds           int
}

// replicas is how many pods each app has.
const replicas = 5

// kubeBench measures controllers, one after the other on one cluster.
type kubeBench struct {
	kubeOptions
	cluster *cluster
	dir     string
	images  []string // as many as there are releases
	said    func(format string, args ...any)
}

// contender is a controller that rolls apps out.
type contender struct {
	title, namespace string
	collection       string                                      // path of its resources, in the namespace
	object           func(n int, image string) map[string]any    // the app of a number
	done             func(object map[string]any, round int) bool // the app is at rest with the image of a round, from 0 on
	start            func(dir, kubeconfig string) (*process, error)
}

// runKube measures controllers on a cluster, and writes down what it found.
func runKube(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	b := &kubeBench{kubeOptions: o.kube, dir: dir, said: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }}
	if b.cluster, err = openCluster(o.kube.config); err != nil {
		return err
	}
	if b.spillway == "" {
		b.spillway = filepath.Join(dir, "spillway")
		if _, err := outputIn(ctx, 10*time.Minute, "..", []string{"CGO_ENABLED=0"}, "go", "build", "-o", b.spillway, "./cmd/spillway"); err != nil {
			return fmt.Errorf("%w (this program runs in the directory bench)", err)
		}
	}
	definitions, err := v1alpha1.Definitions(appfile.Schema())
	if err != nil {
		return err
	}
	for _, d := range definitions {
		if err := b.kind(ctx, d.Name, d); err != nil {
			return err
		}
	}
	switch {
	case b.argo == "none":
		b.argo = ""
	default:
		if b.argo, err = findBuilt(ctx, o, argoRollouts); err != nil {
			return err
		}
		if err := b.argoKinds(ctx); err != nil {
			return err
		}
	}
	r, err := b.run(ctx)
	if err != nil {
		if r != nil && len(r.Measured) > 0 {
			err = errors.Join(err, r.publish(o.out))
		}
		return fmt.Errorf("%w; what was said is in %s", err, dir)
	}
	return errors.Join(r.publish(o.out), os.RemoveAll(dir))
}

// run measures everything and gives what it found.
func (b *kubeBench) run(ctx context.Context) (*kubeResults, error) {
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	r := &kubeResults{Date: time.Now().UTC().Format(time.RFC3339), Commit: commit(ctx), Machine: thisMachine(), Rounds: b.rounds, Apps: b.apps, Compared: b.compared}
	contenders := []contender{b.spillwayContender()}
	if b.argo != "" {
		contenders = slices.Insert(contenders, 0, b.argoContender()) // so that Spillway finds the larger API server
	}
	for _, c := range contenders {
		m, err := b.measure(ctx, c, c.title == "Spillway" && b.apps > b.compared)
		if m != nil && len(m.Changes) > 0 {
			r.Measured = append(r.Measured, *m) // also when the rest of it failed
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", c.title, err)
		}
	}
	return r, nil
}

// prepare makes the images, and fake nodes the only ones.
func (b *kubeBench) prepare(ctx context.Context) error {
	for n := range b.rounds + 2 {
		tag, err := name.ParseReference(fmt.Sprintf("%s/bench:%d", b.registry, n))
		if err != nil {
			return err
		}
		config, err := empty.Image.ConfigFile()
		if err != nil {
			return err
		}
		config = config.DeepCopy()
		config.Config.Entrypoint, config.OS, config.Architecture = []string{"/program", strconv.Itoa(n)}, "linux", "amd64"
		image, err := mutate.ConfigFile(empty.Image, config)
		if err != nil {
			return err
		}
		if err := remote.Write(tag, image, remote.WithContext(ctx)); err != nil {
			return err
		}
		digest, err := image.Digest()
		if err != nil {
			return err
		}
		b.images = append(b.images, tag.Context().Digest(digest.String()).String())
	}
	var nodes struct{ Items []map[string]any }
	if err := b.cluster.do(ctx, "GET", "/api/v1/nodes", plainJSON, nil, &nodes); err != nil {
		return err
	}
	fake := 0
	for _, node := range nodes.Items {
		change := `{"spec":{"unschedulable":true}}`
		if valueAt(node, "metadata", "labels", "type") == "kwok" {
			change = `{"spec":{"taints":null}}`
			fake++
		}
		if err := b.cluster.do(ctx, "PATCH", "/api/v1/nodes/"+textAt(node, "metadata", "name"), mergePatch, change, nil); err != nil {
			return err
		}
	}
	if fake == 0 {
		return errors.New("the cluster has no fake nodes: KUBE_WITH=kwok make kube-up")
	}
	return nil
}

// measure is one contender from its start to its end. Its first apps are for the comparison; with all the rest too.
func (b *kubeBench) measure(ctx context.Context, c contender, all bool) (*contest, error) {
	m := &contest{Title: c.title, Memory: map[int]memory{}}
	namespace := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": c.namespace}}
	if err := b.cluster.apply(ctx, "/api/v1/namespaces/"+c.namespace, namespace); err != nil {
		return nil, err
	}
	count, err := b.cluster.startCounter()
	if err != nil {
		return nil, err
	}
	defer count.close()
	kubeconfig := filepath.Join(b.dir, c.title+".conf")
	if err := count.kubeconfig(kubeconfig, c.namespace); err != nil {
		return nil, err
	}
	p, err := c.start(b.dir, kubeconfig)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p != nil {
			p.end()
		}
	}()
	s := &scene{kubeBench: b, contender: c, contest: m, count: count, process: p}
	if err := s.compare(ctx); err != nil {
		return m, fmt.Errorf("%w: %s", err, p.said())
	}
	if !all {
		b.said("%s: removing its apps", c.title)
		return m, s.clear(ctx)
	}
	if err := s.many(ctx); err != nil {
		return m, fmt.Errorf("%w: %s", err, s.process.said())
	}
	p.end()
	p, err = s.again(ctx, kubeconfig)
	return m, err
}

// scene is one contender at work.
type scene struct {
	*kubeBench
	contender
	*contest
	count   *counter
	process *process
}

// settled is how long nothing is done before memory or silence is looked at.
const settled = 10 * time.Second

// compare is what all contenders do: the apps come, and change their image, as often as there are rounds.
func (s *scene) compare(ctx context.Context) error {
	pass(ctx, settled)
	if err := s.remember(0); err != nil {
		return err
	}
	s.count.take()
	took, err := s.create(ctx, 1, s.compared)
	if err != nil {
		return err
	}
	pass(ctx, settled)
	s.Created, s.CreateCalls = took.Seconds(), s.count.take()
	s.said("%s: %d apps are there after %.1f s, %d calls", s.title, s.compared, s.Created, sumOf(s.CreateCalls))
	if err := s.remember(s.compared); err != nil {
		return err
	}
	for round := 1; round <= s.rounds; round++ {
		if err := s.change(ctx, round); err != nil {
			return err
		}
	}
	return nil
}

// create makes apps and waits until all are at rest.
func (s *scene) create(ctx context.Context, first, last int) (time.Duration, error) {
	began := time.Now()
	err := each(first, last, func(n int) error {
		return s.cluster.do(ctx, "POST", s.collection, plainJSON, s.object(n, s.images[0]), nil)
	})
	if err != nil {
		return 0, err
	}
	waiting, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	_, err = s.cluster.await(waiting, s.collection, last-first+1, func(o map[string]any) bool {
		n, _ := strconv.Atoi(textAt(o, "metadata", "labels", "number"))
		return n >= first && n <= last && s.done(o, 0)
	})
	return time.Since(began), err
}

// change gives all apps of the comparison another image and waits until all are at rest with it.
func (s *scene) change(ctx context.Context, round int) error {
	s.count.take()
	before, err := treeUsage(s.process.pid())
	if err != nil {
		return err
	}
	began, at := time.Now(), make([]time.Time, s.compared+1)
	err = each(1, s.compared, func(n int) error {
		at[n] = time.Now()
		return s.swap(ctx, n, round)
	})
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	ends, err := s.cluster.await(waiting, s.collection, s.compared, func(o map[string]any) bool { return s.done(o, round) })
	if err != nil {
		return err
	}
	took := time.Since(began)
	pass(ctx, settled)
	after, err := treeUsage(s.process.pid())
	if err != nil {
		return err
	}
	var each []float64
	for n := 1; n <= s.compared; n++ {
		each = append(each, ends[appName(n)].Sub(at[n]).Seconds())
	}
	mem, err := memoryOf(s.process.pid())
	calls := s.count.take()
	s.Changes = append(s.Changes, change{Seconds: took.Seconds(), Half: median(each), CPU: (after.cpu - before.cpu).Seconds(), Calls: calls, Memory: mem, Load: loadNow()})
	s.said("%s: all have another image after %.1f s (half of them after %.1f s each), %d calls, %d of them write; CPU %.1f s, %d MB",
		s.title, took.Seconds(), median(each), sumOf(calls), writesOf(calls), (after.cpu - before.cpu).Seconds(), mem.Now>>20)
	return err
}

func (s *scene) swap(ctx context.Context, n, round int) error {
	return s.cluster.do(ctx, "PATCH", s.collection+"/"+appName(n), mergePatch, map[string]any{"spec": s.object(n, s.images[round])["spec"]}, nil)
}

// many is Spillway alone with all apps: memory, silence, and one change after the other.
func (s *scene) many(ctx context.Context) error {
	took, err := s.create(ctx, s.compared+1, s.apps)
	if err != nil {
		return err
	}
	pass(ctx, settled)
	s.CreatedAll = took.Seconds()
	s.said("%s: %d apps are there after %.1f s more", s.title, s.apps, s.CreatedAll)
	if err := s.remember(s.apps); err != nil {
		return err
	}
	s.count.take()
	before, err := treeUsage(s.process.pid())
	if err != nil {
		return err
	}
	pass(ctx, time.Minute)
	after, err := treeUsage(s.process.pid())
	if err != nil {
		return err
	}
	s.Quiet, s.QuietCPU = s.count.take(), (after.cpu - before.cpu).Seconds()
	s.said("%s: in a quiet minute %d calls, CPU %.2f s", s.title, sumOf(s.Quiet), s.QuietCPU)
	flat, err := s.react(ctx, s.compared+1, min(2*s.compared, s.apps), 0)
	if err != nil {
		return err
	}
	s.FlatOut = flat
	pace := time.Hour / time.Duration(s.apps)
	s.Hourly, err = s.react(ctx, s.paced(), min(s.paced()+hourly-1, s.apps), pace)
	return err
}

// hourly is how many changes are made at the pace at which each app has one in an hour.
const hourly = 60

// paced is the number of the first app of those; the one before is for a start.
func (s *scene) paced() int { return min(2*s.compared, s.apps) + 2 }

// react changes apps, one after the other and no sooner than pace allows, each when the one before was acted on.
func (s *scene) react(ctx context.Context, first, last int, pace time.Duration) (r reaction, err error) {
	from, err := os.Stat(s.process.log)
	if err != nil {
		return r, err
	}
	for n := first; n <= last; n++ {
		began := time.Now()
		if err := s.swap(ctx, n, 1); err != nil {
			return r, err
		}
		prefix := "/apis/apps/v1/namespaces/" + s.namespace + "/deployments/" + appName(n) + "-www-2"
		for s.count.wrote(prefix).IsZero() {
			if time.Since(began) > time.Minute {
				return r, fmt.Errorf("a change of %s was not acted on", appName(n))
			}
			pass(ctx, 2*time.Millisecond)
		}
		r.Reactions = append(r.Reactions, s.count.wrote(prefix).Sub(began).Seconds()*1000)
		pass(ctx, pace-time.Since(began))
	}
	pass(ctx, settled)
	r.Decisions, r.Waits, err = rounds(s.process.log, from.Size())
	slices.Sort(r.Reactions)
	s.said("%s: a change every %v or when it can: reaction p50 %.1f p99 %.1f ms, decision p50 %.1f p99 %.1f ms of %d, after a wait of p99 %.1f ms", s.title, pace,
		share(r.Reactions, 0.5), share(r.Reactions, 0.99), share(r.Decisions, 0.5), share(r.Decisions, 0.99), len(r.Decisions), share(r.Waits, 0.99))
	return r, err
}

// again starts the controller anew beside all its apps, of which one was changed in between.
func (s *scene) again(ctx context.Context, kubeconfig string) (*process, error) {
	last := s.paced() - 1
	if err := s.swap(ctx, last, 1); err != nil {
		return nil, err
	}
	s.count.take()
	began := time.Now()
	p, err := s.start(s.dir, kubeconfig)
	if err != nil {
		return nil, err
	}
	prefix := "/apis/apps/v1/namespaces/" + s.namespace + "/deployments/" + appName(last) + "-www-2"
	for s.count.wrote(prefix).IsZero() {
		if time.Since(began) > 2*time.Minute {
			return p, fmt.Errorf("nothing was done after a start: %s", p.said())
		}
		pass(ctx, 5*time.Millisecond)
	}
	s.Started = s.count.wrote(prefix).Sub(began).Seconds()
	pass(ctx, 2*settled)
	s.StartCalls = s.count.take()
	s.StartMemory, err = memoryOf(p.pid())
	s.said("%s: started beside %d apps it did what was asked meanwhile after %.1f s, %d calls, at most %d MB", s.title, s.apps, s.Started, sumOf(s.StartCalls), s.StartMemory.Most>>20)
	return p, err
}

// clear removes all apps and waits for their pods to go.
func (s *scene) clear(ctx context.Context) error {
	if err := s.cluster.do(ctx, "DELETE", s.collection, plainJSON, nil, nil); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < 10*time.Minute; pass(ctx, time.Second) {
		var pods struct{ Items []struct{} }
		if err := s.cluster.do(ctx, "GET", "/api/v1/namespaces/"+s.namespace+"/pods?limit=1", plainJSON, nil, &pods); err != nil || len(pods.Items) == 0 {
			return err
		}
	}
	return errors.New("its pods did not go")
}

func (s *scene) remember(apps int) error {
	m, err := memoryOf(s.process.pid())
	s.Memory[apps] = m
	s.said("%s: with %d apps %d MB, at most %d MB", s.title, apps, m.Now>>20, m.Most>>20)
	return err
}

// rounds are the times of decisions in ms that a log tells from an offset on, and how long each waited for its turn
// before, sorted.
func rounds(file string, from int64) (took, waited []float64, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range regexp.MustCompile(`msg=round app=\S+ waited=(\S+) took=(\S+)`).FindAllSubmatch(text[from:], -1) {
		for i, list := range []*[]float64{&waited, &took} {
			if d, err := time.ParseDuration(string(m[i+1])); err == nil {
				*list = append(*list, d.Round(10*time.Microsecond).Seconds()*1000)
			}
		}
	}
	slices.Sort(took)
	slices.Sort(waited)
	return took, waited, nil
}

// pass lets time go by.
func pass(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
