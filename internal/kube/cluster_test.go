//go:build kube

package kube_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// The cluster that the tests are for: of make kube-up, or any other by these variables.
func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func config(t testing.TB) *rest.Config {
	t.Helper()
	c, err := clientcmd.BuildConfigFromFlags("", setting("SPILLWAY_TEST_KUBECONFIG", "/tmp/spillway-kube/admin.conf"))
	if err != nil {
		t.Fatalf("no cluster to test with: %v; start one: make kube-up, or name one: SPILLWAY_TEST_KUBECONFIG", err)
	}
	return c
}

var answer = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "answer")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "answer"), "./testdata/answer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "answer"))
	if err != nil {
		return "", err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	_ = w.WriteHeader(&tar.Header{Name: "answer", Mode: 0o755, Size: int64(len(program))})
	_, _ = w.Write(program)
	if err := w.Close(); err != nil {
		return "", err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return "", err
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err == nil {
		image, err = mutate.ConfigFile(image, &v1.ConfigFile{Architecture: "amd64", OS: "linux", Config: v1.Config{Entrypoint: []string{"/answer"}}, RootFS: v1.RootFS{Type: "layers", DiffIDs: must(l.DiffID())}})
	}
	if err != nil {
		return "", err
	}
	digest, err := image.Digest()
	if err != nil {
		return "", err
	}
	repo := setting("SPILLWAY_TEST_REGISTRY", "10.99.0.1:5000") + "/answer"
	ref, err := name.NewTag(repo+":test", name.Insecure)
	if err != nil {
		return "", err
	}
	return repo + "@" + digest.String(), remote.Write(ref, image)
})

func must(h v1.Hash, err error) []v1.Hash {
	if err != nil {
		panic(err)
	}
	return []v1.Hash{h}
}

// place is a namespace of the test's own, with a platform in it.
type place struct {
	*kube.Platform
	namespace string
	client    kubernetes.Interface
	image     string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	image, err := answer()
	if err != nil {
		t.Fatal(err)
	}
	c := config(t)
	p := &place{image: image, client: kubernetes.NewForConfigOrDie(c)}
	ns, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.namespace = ns.Name
	t.Cleanup(func() {
		_ = p.client.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{})
	})
	p.Platform, err = kube.Open(kube.Config{
		Rest: c, Namespace: ns.Name, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Gateway: kube.Gateway{Namespace: "gateway", Name: "public"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }() // owned by the test; ends with ctx; waited for in Cleanup
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// release is release n of www and a private backend, both changed in it.
func (p *place) release(n int, env map[string]string) spillway.Release {
	stop := spillway.DefaultStop()
	stop.Drain = spillway.Duration(2 * time.Second)
	health := spillway.DefaultProbe()
	health.Path, health.Interval = "/healthz", spillway.Duration(time.Second)
	www := spillway.Service{Name: "www", Host: []string{p.namespace + ".test"}, Needs: []string{"backend"}, Env: env, Health: health, Stop: stop, Scale: 2}
	backend := spillway.Service{Name: "backend", Health: health, Stop: stop, Scale: 1}
	artefact := spillway.Artefact{Image: p.image}
	return spillway.Release{
		App: "castle", Number: n, Groups: map[string]int{"www": n, "backend": n}, Config: spillway.App{Name: "castle", Services: []spillway.Service{backend, www}},
		Artefacts: map[string]spillway.Artefact{"www": artefact, "backend": artefact},
	}
}

// desired has the releases run, with the weights given for www by release.
func (p *place) desired(generation int64, weights map[int]spillway.Share, releases ...int) rollout.Desired {
	d := rollout.Desired{Route: spillway.Route{Generation: generation}}
	public := spillway.Edge{Service: "www", Target: "www", Hosts: []string{p.namespace + ".test"}}
	for _, n := range releases {
		www, backend := spillway.Group{Service: "www", Release: n}, spillway.Group{Service: "backend", Release: n}
		d.Groups = append(d.Groups, rollout.Want{Group: backend, Replicas: 1, Release: n}, rollout.Want{Group: www, Replicas: 2, Release: n})
		d.Route.Edges = append(d.Route.Edges, spillway.Edge{Service: "backend", From: www, Backends: []spillway.Backend{{Group: backend, Release: n, Weight: spillway.Whole}}})
		if w, ok := weights[n]; ok {
			public.Backends = append(public.Backends, spillway.Backend{Group: www, Release: n, Weight: w})
		}
	}
	d.Route.Edges = append(d.Route.Edges, public)
	return d
}

// until observes until the observation is as wanted.
func (p *place) until(t *testing.T, what string, ok func(rollout.Observation) bool) rollout.Observation {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		o, err := p.Observe(t.Context(), "castle")
		if err != nil {
			t.Fatal(err)
		}
		if ok(o) {
			return o
		}
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s; %+v", what, o)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (p *place) get(t *testing.T, path string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, setting("SPILLWAY_TEST_GATEWAY", "http://10.99.0.1")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = p.namespace + ".test"
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, strings.TrimSpace(string(body)))
}

func readyOf(o rollout.Observation, service string, release int) int {
	for _, g := range o.Groups {
		if g.Group == (spillway.Group{Service: service, Release: release}) {
			return g.Ready
		}
	}
	return 0
}

func TestPlatform_ServesTwoReleasesByWeight(t *testing.T) {
	p := newPlace(t)
	one, two := p.release(1, nil), p.release(2, map[string]string{"NEW": "yes"})
	releases := map[int]spillway.Release{1: one, 2: two}
	began := time.Now()
	d := p.desired(1, map[int]spillway.Share{1: spillway.Whole}, 1)
	if err := p.Apply(t.Context(), "castle", releases, d); err != nil {
		t.Fatal(err)
	}
	p.until(t, "release 1 is ready and routed", func(o rollout.Observation) bool {
		return readyOf(o, "www", 1) == 2 && readyOf(o, "backend", 1) == 1 && o.Served.Generation == 1
	})
	t.Logf("ready and routed after %v", time.Since(began))
	if got := p.get(t, "/"); got != "200 www.1" {
		t.Errorf("got %q", got)
	}
	if err := p.Apply(t.Context(), "castle", releases, p.desired(1, map[int]spillway.Share{1: spillway.Whole}, 1, 2)); err != nil {
		t.Fatal(err)
	}
	p.until(t, "release 2 is ready", func(o rollout.Observation) bool { return readyOf(o, "www", 2) == 2 })
	d = p.desired(2, map[int]spillway.Share{1: 8000, 2: 2000}, 1, 2)
	if err := p.Apply(t.Context(), "castle", releases, d); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	p.until(t, "release 2 has a fifth", func(o rollout.Observation) bool { return readyOf(o, "www", 2) == 2 && o.Served.Generation == 2 })
	t.Logf("second release after %v", time.Since(began))
	counts := map[string]int{}
	for range 200 {
		counts[p.get(t, "/")]++
		if tiers := p.get(t, "/backend"); tiers != "200 backend.1" && tiers != "200 backend.2" {
			t.Fatalf("backend: %q", tiers)
		}
	}
	t.Log(counts)
	if n := counts["200 www.2"]; n < 20 || n > 60 || counts["200 www.1"] != 200-n {
		t.Errorf("of 200 answers: %v", counts)
	}
}
