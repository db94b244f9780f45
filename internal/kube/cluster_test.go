//go:build kube

package kube_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/spillway-dev/spillway/internal/sim/platformtest"
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

// newPlatform opens a platform in a namespace of the test's own, and runs it.
func newPlatform(t *testing.T, conf kube.Config) *kube.Platform {
	t.Helper()
	conf.Rest = config(t)
	clients := kubernetes.NewForConfigOrDie(conf.Rest)
	ns, err := clients.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = clients.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{}) // what stays of it disturbs nobody
	})
	conf.Namespace, conf.Gateway = ns.Name, kube.Gateway{Namespace: "gateway", Name: "public"}
	conf.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	p, err := kube.Open(conf)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
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

// gateway reaches the gateway whatever host a URL names.
func gateway() *http.Client {
	return &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, setting("SPILLWAY_TEST_GATEWAY", "10.99.0.1:80"))
		},
		MaxIdleConnsPerHost: 4,
	}}
}

func TestKube_KeepsThePromisesOfAPlatform(t *testing.T) {
	image, err := answer()
	if err != nil {
		t.Fatal(err)
	}
	p := newPlatform(t, kube.Config{})
	platformtest.Run(t, platformtest.Bench{
		Platform: p, Client: gateway(), Patience: 90 * time.Second, Pass: func() { <-time.After(100 * time.Millisecond) },
		Prefix: fmt.Sprintf("k%x-", time.Now().Unix()%0xfffff),
		Fit: func(r *spillway.Release) {
			for i := range r.Config.Services {
				s := &r.Config.Services[i]
				s.Run = spillway.Command{Exec: []string{"/answer"}}
				r.Artefacts[s.Name] = spillway.Artefact{Image: image}
			}
		},
		Lacks: platformtest.Lacks{InFlight: true, Traffic: true, Tripwire: true, Trials: true, Generations: true, Closed: true, Templates: true},
	})
}
