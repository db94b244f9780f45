package oci_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/oci"
)

func TestPin_GivesWhatATagMeansNow(t *testing.T) {
	h := newHouse(t)
	r := open(t, oci.Config{})
	image := h.base(t, v1.ConfigFile{Architecture: "amd64"}, map[string]string{"a": "1"})
	first, err := r.Pin(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	if first.Image != h.host+"/base@"+first.Digest || first.Built() {
		t.Errorf("got %+v", first)
	}
	h.base(t, v1.ConfigFile{Architecture: "amd64"}, map[string]string{"a": "2"}) // the tag moves
	second, err := r.Pin(t.Context(), image)
	if err != nil || second.Digest == first.Digest {
		t.Errorf("got %+v, %v after the tag moved", second, err)
	}
	again, err := r.Pin(t.Context(), image+"@"+first.Digest) // with both, the digest counts
	if err != nil || again != first {
		t.Errorf("got %+v, %v, want %+v", again, err, first)
	}
	if err := r.Exists(t.Context(), first.Image); err != nil {
		t.Error(err)
	}
	gone := h.host + "/base@sha256:" + strings.Repeat("0", 64)
	if err := r.Exists(t.Context(), gone); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("an image that is gone: %v", err)
	}
}

func TestPin_NamesImagesAsPeopleDo(t *testing.T) {
	r := open(t, oci.Config{})
	for image, want := range map[string]string{
		"postgres:17": "docker.io/library/postgres@sha256:00", "docker.io/shop/web": "docker.io/shop/web@sha256:00",
		"ghcr.io/shop/web:v1": "ghcr.io/shop/web@sha256:00", "127.0.0.1:5000/web:1": "127.0.0.1:5000/web@sha256:00",
	} {
		if got, err := r.Pinned(image); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", image, got, err, want)
		}
	}
}

// Some registries do not say a digest before they are asked for the whole manifest.
func TestPin_AsksForTheManifestWhereTheHeadSaysNoDigest(t *testing.T) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var filled atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if filled.Load() && r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Content-Length", "10")
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer server.Close()
	h := &house{host: strings.TrimPrefix(server.URL, "http://")}
	image := h.base(t, v1.ConfigFile{Architecture: "amd64"}, map[string]string{"a": "1"})
	filled.Store(true)
	if got, err := open(t, oci.Config{}).Pin(t.Context(), image); err != nil || got.Digest == "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// answering is a registry that says the same to everything.
func answering(t *testing.T, status int, body string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestPin_SaysWhatIsWrongAndWhatToDo(t *testing.T) {
	h := newHouse(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(secure.Close) // the subtests run behind this function
	for name, tt := range map[string]struct {
		image string
		is    error
		says  []string
	}{
		"not there":    {h.host + "/none:1", spillway.ErrNotFound, []string{"cannot read the image " + h.host + "/none:1", "has no such image", "check the name and the tag"}},
		"denied":       {answering(t, 403, "") + "/web:1", spillway.ErrDenied, []string{"does not let us (403 Forbidden)", "docker login 127.0.0.1"}},
		"too many":     {answering(t, 429, "") + "/web:1", spillway.ErrUnavailable, []string{"too many requests"}},
		"in trouble":   {answering(t, 503, "") + "/web:1", spillway.ErrUnavailable, []string{"in trouble (503 Service Unavailable)", "try again"}},
		"strange":      {answering(t, 418, "") + "/web:1", spillway.ErrUnavailable, []string{"answered 418"}},
		"down":         {closed.Addr().String() + "/web:1", spillway.ErrUnavailable, []string{"nothing listens at the registry " + closed.Addr().String(), "start it"}},
		"no such host": {"registry.spillway.invalid/web:1", spillway.ErrUnavailable, []string{"host registry.spillway.invalid", "DNS"}},
		"not trusted":  {strings.TrimPrefix(secure.URL, "https://") + "/web:1", spillway.ErrUnavailable, []string{"certificate of the registry", "not trusted", "add its authority"}},
		"no name":      {"No Image", spillway.ErrInvalid, []string{`"No Image" is not the name of an image`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := open(t, oci.Config{}).Pin(t.Context(), tt.image)
			if !errors.Is(err, tt.is) {
				t.Fatalf("got %v, want one that is %v", err, tt.is)
			}
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
		})
	}
}

// The library asks a private address without TLS when it does not answer to it, and both errors are told.
func TestExplain_DoesNotBlameTLSWhereNobodyAnswers(t *testing.T) {
	r := open(t, oci.Config{})
	for want, first := range map[string]error{
		"nothing listens at the registry 10.0.0.7:5000 (connection refused); start it, or check its name and port": &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
		"did not answer in time":                      &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded},
		"does not speak TLS":                          http.ErrSchemeMismatch,
		"allow it: --insecure-registry 10.0.0.7:5000": errors.New("EOF"),
	} {
		if err := r.ExplainBesidePlain(first, "10.0.0.7:5000/shop"); !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", first, err, want)
		}
	}
}

func TestPin_DoesNotWaitForever(t *testing.T) {
	quiet := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-quiet }))
	defer server.Close()
	defer close(quiet)
	r := open(t, oci.Config{})
	r.Hurry(50 * time.Millisecond)
	_, err := r.Pin(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/web:1")
	if !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("got %v", err)
	}
}

// guardedHouse is a registry that wants the password of anna.
func guardedHouse(t *testing.T) *house {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "anna" || password != "sesame" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return &house{host: strings.TrimPrefix(server.URL, "http://")}
}

func TestCredentials_AreThoseOfDocker(t *testing.T) {
	h := guardedHouse(t)
	r := open(t, oci.Config{Repository: h.host + "/shop"})
	a := artefact(t, "sha256:a", tree())
	for name, err := range map[string]error{
		"pin":  r.Exists(t.Context(), h.host+"/shop/castle-www:1"),
		"push": func() error { _, err := r.Push(t.Context(), "castle", service("www", "./www"), a); return err }(),
	} {
		if !errors.Is(err, spillway.ErrDenied) || !strings.Contains(err.Error(), "docker login "+h.host) {
			t.Errorf("%s without credentials: %v", name, err)
		}
	}
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	config := fmt.Sprintf(`{"auths": {%q: {"username": "anna", "password": "sesame"}}}`, h.host)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := r.Push(t.Context(), "castle", service("www", "./www"), a)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Exists(t.Context(), got.Image); err != nil {
		t.Error(err)
	}
}

// A password must not go through a network in the clear unless somebody said so; the library would try.
func TestTransport_RefusesRequestsWithoutTLS(t *testing.T) {
	h := newHouse(t)
	for host, want := range map[string]bool{
		h.host: true, "10.255.255.1:5000": false, "registry.spillway.invalid": false, "registry.spillway.invalid:5000": false,
	} {
		r := open(t, oci.Config{})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.Transport().RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		if refused := err != nil && strings.Contains(err.Error(), "without TLS"); refused == want {
			t.Errorf("%s: %v", host, err)
		}
	}
	told := open(t, oci.Config{Insecure: []string{"registry.spillway.invalid:5000"}})
	_, err := told.Pin(t.Context(), "registry.spillway.invalid:5000/web:1")
	if err == nil || strings.Contains(err.Error(), "TLS") {
		t.Errorf("a registry that is allowed to: %v", err)
	}
}
