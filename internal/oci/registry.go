package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spillway-dev/spillway"
)

// Config says where images go and what they are made upon. The zero value can pin images of others, and nothing else.
type Config struct {
	// Repository is where images are put: "registry.example.com/shop" gets registry.example.com/shop/castle-www.
	Repository string
	// Insecure are registries, "HOST[:PORT]", that may be asked without TLS. Those of this machine always may.
	Insecure []string
	// Base is the image that artefacts are put upon: "gcr.io/distroless/nodejs24-debian13". "" = none: then programs have
	// to be static, and the image has the machine's certificate authorities, /etc/passwd and /tmp beside /app.
	Base string
	// User is whom programs run as, "UID[:GID]"; "" = the base's user, and 65532:65532 where that is nobody or root.
	User string
	// Architecture is that of the nodes, as Go names it: "amd64"; "" = this machine's.
	Architecture string
	// Authorities is a file of PEM certificates for images without a base; "" = where this machine has its own.
	Authorities string
	// Temp is where layers are written until they are in the registry; what a crash left there is swept. It is nobody
	// else's; "" = the machine's directory for such files, which is not swept.
	Temp string
	Log  *slog.Logger
}

// Registry makes, finds and pins images. Its methods may be called at the same time.
type Registry struct {
	conf        Config
	host        name.Registry // of conf.Repository
	path        string        // of conf.Repository, without the host
	insecure    []string
	authorities []byte
	transport   http.RoundTripper
	patience    time.Duration // for one answer about a name; uploads take what they take

	mu       sync.Mutex           // guards what is below
	layers   map[string]layer     // without a file, by digest of the artefact
	contents map[v1.Hash]contents // of bases, by their digest
}

// answerTime is how long a registry may take to say what a name is.
const answerTime = 30 * time.Second

// New checks the settings. It asks no registry.
func New(conf Config) (*Registry, error) {
	r := &Registry{conf: conf, insecure: conf.Insecure, patience: answerTime, layers: map[string]layer{}, contents: map[v1.Hash]contents{}}
	if r.conf.Architecture == "" {
		r.conf.Architecture = runtime.GOARCH
	}
	if r.conf.Log == nil {
		r.conf.Log = slog.New(slog.DiscardHandler)
	}
	if conf.Repository != "" {
		host, path, _ := strings.Cut(conf.Repository, "/")
		repository, err := name.NewRepository(conf.Repository, r.options(host)...)
		if err != nil || !hostLike(host) || path == "" || strings.Contains("/"+path, "//") {
			return nil, fmt.Errorf("%q is no place for images: write HOST[:PORT]/NAME, such as registry.example.com/shop, without http:// and without a tag: %w",
				conf.Repository, spillway.ErrInvalid)
		}
		r.host, r.path = repository.Registry, path
	}
	if conf.Base != "" {
		if _, err := r.parse(conf.Base); err != nil {
			return nil, fmt.Errorf("base image: %w", err)
		}
	}
	if err := checkUser(conf.User); err != nil {
		return nil, err
	}
	if conf.Base == "" {
		if err := r.readAuthorities(); err != nil {
			return nil, err
		}
	}
	if err := r.sweep(); err != nil {
		return nil, err
	}
	plain, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the transport of net/http was replaced")
	}
	plain = plain.Clone()
	plain.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	plain.ResponseHeaderTimeout = 3 * time.Minute // some take long to put a large layer away
	r.transport = guarded{plain, r.mayBePlain}
	return r, nil
}

// sweep makes the directory for layers and removes what a crash left in it.
func (r *Registry) sweep() error {
	if r.conf.Temp == "" {
		return nil
	}
	if err := os.MkdirAll(r.conf.Temp, 0o700); err != nil {
		return fmt.Errorf("directory for layers: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(r.conf.Temp, layerFiles))
	for _, file := range left {
		err = errors.Join(err, os.Remove(file))
	}
	if err != nil {
		return fmt.Errorf("sweep unfinished layers: %w", err)
	}
	return nil
}

// hostLike reports whether the first part of a name is a host, as docker tells it: it has a dot or a port, or is localhost.
func hostLike(host string) bool {
	return strings.ContainsAny(host, ".:") || host == "localhost"
}

// bundles are where machines have their certificate authorities: Debian, Fedora, SUSE, Alpine and their like.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// readAuthorities reads the certificate authorities once: all images of one server have the same.
func (r *Registry) readAuthorities() (err error) {
	if r.conf.Authorities != "" {
		if r.authorities, err = os.ReadFile(r.conf.Authorities); err != nil {
			return fmt.Errorf("certificate authorities for images: %w", err)
		}
		return nil
	}
	for _, file := range bundles {
		if r.authorities, err = os.ReadFile(file); err == nil {
			return nil
		}
	}
	r.conf.Log.Warn("this machine has no certificate authorities: programs in images without a base can verify no TLS server", "looked", bundles)
	return nil
}

// options are how a name of a host is read.
func (r *Registry) options(host string) []name.Option {
	if slices.Contains(r.insecure, host) {
		return []name.Option{name.Insecure}
	}
	return nil
}

// parse reads the name of an image.
func (r *Registry) parse(image string) (name.Reference, error) {
	host, _, _ := strings.Cut(image, "/")
	ref, err := name.ParseReference(image, r.options(host)...)
	if err != nil {
		return nil, fmt.Errorf("%q is not the name of an image, such as postgres:17 or registry.example.com/shop/web:1.4: %w", image, spillway.ErrInvalid)
	}
	return ref, nil
}

// ask are the options of each request.
func (r *Registry) ask(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(r.transport), remote.WithUserAgent("spillway"),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: r.conf.Architecture}),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 4, Jitter: 0.1, Steps: 3}),
	}
}

// Pin finds out what an image is now and gives it by digest: for "postgres:17" the Image is
// "docker.io/library/postgres@sha256:…". An image that is written with its digest is looked up too, so that a release
// with an image that is gone is refused before anything changes.
//
// It is ErrNotFound when there is no such image, ErrDenied when we may not read it, ErrInvalid when the name is none,
// and ErrUnavailable when the registry cannot be asked.
func (r *Registry) Pin(ctx context.Context, image string) (spillway.Artefact, error) {
	ref, err := r.parse(image)
	if err != nil {
		return spillway.Artefact{}, err
	}
	digest, err := r.look(ctx, ref)
	if err != nil {
		return spillway.Artefact{}, r.explain(err, "read the image "+image, ref.Context())
	}
	return spillway.Artefact{Digest: digest.String(), Image: pinned(ref.Context(), digest)}, nil
}

// Exists reports nil when a pinned image can still be pulled. Its errors are those of Pin.
func (r *Registry) Exists(ctx context.Context, image string) error {
	_, err := r.Pin(ctx, image)
	return err
}

// look gives the digest of what a name means: an image, or an index of images of several architectures.
func (r *Registry) look(ctx context.Context, ref name.Reference) (v1.Hash, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.patience, errSilent)
	defer cancel()
	head, err := remote.Head(ref, r.ask(ctx)...)
	if err == nil {
		return head.Digest, nil
	}
	var answer *transport.Error
	if errors.As(err, &answer) || ctx.Err() != nil {
		return v1.Hash{}, cause(ctx, err)
	}
	var network net.Error
	if errors.As(err, &network) {
		return v1.Hash{}, err
	}
	whole, err := remote.Get(ref, r.ask(ctx)...) // some registries say no digest without the manifest
	if err != nil {
		return v1.Hash{}, cause(ctx, err)
	}
	return whole.Digest, nil
}

// pinned is an image by digest, with the name that people know docker's registry by.
func pinned(repository name.Repository, digest v1.Hash) string {
	text := repository.Name() + "@" + digest.String()
	if rest, ok := strings.CutPrefix(text, name.DefaultRegistry+"/"); ok {
		return "docker.io/" + rest
	}
	return text
}
