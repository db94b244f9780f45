package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spillway-dev/spillway"
)

// artefactLabel says of an image what it was made of.
const artefactLabel = "dev.spillway.artefact"

var userText = regexp.MustCompile(`^[0-9]{1,10}(:[0-9]{1,10})?$`)

// checkUser checks the setting: names would need an /etc/passwd that has them, and Kubernetes cannot tell whether a
// name is root.
func checkUser(user string) error {
	if user != "" && !userText.MatchString(user) {
		return fmt.Errorf("%q is no user for images: write UID or UID:GID in numbers, such as %s: %w", user, nobody, spillway.ErrInvalid)
	}
	return nil
}

// Push makes the image of an artefact of a service, puts it into the registry unless it is there, and gives the
// artefact with its Image, such as "registry.example.com/shop/castle-www@sha256:…". The app is the name of the app.
//
// The image runs what the service's run says, where that has no variables: they are put in by whoever runs it.
// It is ErrInvalid when the program cannot run in it: no shell, no dynamic linker, another machine. Errors of the registry
// are as those of Pin. Errors do not name the service: the caller does.
func (r *Registry) Push(ctx context.Context, app string, s spillway.Service, a spillway.Artefact) (spillway.Artefact, error) {
	if r.conf.Repository == "" {
		return spillway.Artefact{}, fmt.Errorf("it is built, and the server knows no registry to put its image into; start the server with --registry HOST[:PORT]/NAME: %w",
			spillway.ErrInvalid)
	}
	g, err := r.ground(ctx)
	if err != nil {
		return spillway.Artefact{}, err
	}
	defer func() {
		if err := g.layer.discard(); err != nil {
			r.conf.Log.Warn("cannot remove a temporary file", "error", err)
		}
	}()
	run, err := r.programs(s, a, g)
	if err != nil {
		return spillway.Artefact{}, err
	}
	repository := r.host.Repo(r.path, app+"-"+s.Name)
	digest, err := r.put(ctx, repository, s, a, g, run)
	if err != nil {
		var t trouble
		if !errors.As(err, &t) {
			err = r.explain(err, "put the image into "+repository.Name(), repository)
		}
		return spillway.Artefact{}, err
	}
	a.Image = pinned(repository, digest)
	return a, nil
}

// ground is what an artefact is put upon.
type ground struct {
	image v1.Image
	name  string // "" = there is no base
	layer layer  // of an image without a base; to be discarded
}

// ground looks the base up: what its tag means now.
func (r *Registry) ground(ctx context.Context) (ground, error) {
	if r.conf.Base == "" {
		l, err := groundLayer(r.authorities, r.conf.Temp)
		if err != nil {
			return ground{}, fmt.Errorf("write a layer: %w", err)
		}
		image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
		image, err = mutate.Append(image, mutate.Addendum{Layer: l, History: history("users, certificate authorities, /tmp")})
		return ground{image: image, layer: l}, err
	}
	ref, err := r.parse(r.conf.Base)
	if err != nil {
		return ground{}, fmt.Errorf("base image: %w", err)
	}
	image, err := remote.Image(ref, r.ask(ctx)...)
	var config *v1.ConfigFile
	if err == nil {
		config, err = image.ConfigFile()
	}
	if err != nil {
		return ground{}, r.explain(err, "read the base image "+r.conf.Base+" for linux/"+r.conf.Architecture, ref.Context())
	}
	if config.Architecture != "" && config.Architecture != r.conf.Architecture {
		return ground{}, fmt.Errorf("the base image %s is for %s, and the nodes are %s; choose one that is for them: --base-image IMAGE: %w",
			r.conf.Base, config.Architecture, r.conf.Architecture, spillway.ErrInvalid)
	}
	return ground{image: image, name: r.conf.Base}, nil
}

// history is how a layer came to be. It has no time, as nothing in an image of ours has.
func history(what string) v1.History {
	return v1.History{Created: v1.Time{Time: time.Unix(0, 0).UTC()}, CreatedBy: "spillway", Comment: what}
}

// programs looks at all that the service starts, and gives what run does; that is zero when the base's own command is run.
func (r *Registry) programs(s spillway.Service, a spillway.Artefact, g ground) (program, error) {
	var run program
	for _, c := range []struct {
		key     string
		command spillway.Command
	}{{"run", s.Run}, {"release", s.Release}} {
		if c.command.Zero() {
			continue
		}
		p, err := programOf(s, c.key, c.command, a.Dir)
		if err == nil {
			err = r.check(p, g)
		}
		if err != nil {
			return program{}, err
		}
		if c.key == "run" {
			run = p
		}
	}
	return run, nil
}

// check reports what keeps a program from running in the image.
func (r *Registry) check(p program, g ground) error {
	if p.machine != "" && p.machine != r.conf.Architecture {
		return fmt.Errorf("its program is built for %s, and the nodes are %s; have the build make it for them (Go: GOARCH=%s): %w",
			p.machine, r.conf.Architecture, r.conf.Architecture, spillway.ErrInvalid)
	}
	for _, w := range p.wants {
		there, err := r.inBase(g, w.path)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		where, remedy := "the image is empty but for the artefact", "give images a base that has it: --base-image IMAGE"
		if g.name != "" {
			where, remedy = "the base image "+g.name+" has none", "choose a base image that has it: --base-image IMAGE"
		}
		if w.remedy != "" {
			remedy = w.remedy + ", or " + remedy
		}
		return fmt.Errorf("there is no %s in its image: %s, and %s; %s: %w", w.path, w.why, where, remedy, spillway.ErrInvalid)
	}
	return nil
}

// inBase reports whether the base has a file. What a base has is read once, when it is asked for the first time.
func (r *Registry) inBase(g ground, name string) (bool, error) {
	if g.name == "" {
		return false, nil
	}
	digest, err := g.image.Digest()
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	have, known := r.contents[digest]
	r.mu.Unlock()
	if !known {
		if have, err = contentsOf(g.image); err != nil {
			ref, _ := r.parse(g.name) // New has parsed it
			return false, r.explain(err, "read the base image "+g.name, ref.Context())
		}
		r.mu.Lock()
		r.contents = map[v1.Hash]contents{digest: have} // one base is in use, and its tag may move
		r.mu.Unlock()
	}
	config, err := g.image.ConfigFile()
	if err != nil {
		return false, err
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, v := range config.Config.Env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			search = p
		}
	}
	return have.find(name, search), nil
}

// put makes the image and puts it into a repository unless it is there. The layer of an artefact that was packed before
// is not packed again to find that out.
func (r *Registry) put(ctx context.Context, to name.Repository, s spillway.Service, a spillway.Artefact, g ground, run program) (v1.Hash, error) {
	r.mu.Lock()
	l, known := r.layers[a.Digest]
	r.mu.Unlock()
	if known {
		if _, digest, err := r.image(s, a, g, run, l); err != nil {
			return digest, err
		} else if there, err := r.there(ctx, to, digest); there || err != nil {
			return digest, err
		}
	}
	l, err := directoryLayer(ctx, a.Dir, r.conf.Temp)
	if err != nil {
		return v1.Hash{}, trouble{fmt.Sprintf("cannot pack the artefact %s: %v", a.Dir, err), spillway.ErrUnavailable, err}
	}
	defer func() {
		if err := l.discard(); err != nil {
			r.conf.Log.Warn("cannot remove a temporary file", "error", err)
		}
	}()
	image, digest, err := r.image(s, a, g, run, l)
	if err != nil {
		return digest, err
	}
	if there, err := r.there(ctx, to, digest); err != nil || there {
		r.remember(a, l, err)
		return digest, err
	}
	began := time.Now()
	// By a tag, which names its content: some registries sweep what has none.
	if err := remote.Write(to.Tag("sha256-"+digest.Hex[:16]), image, r.ask(ctx)...); err != nil {
		return digest, err
	}
	r.remember(a, l, nil)
	r.conf.Log.Info("image pushed", "service", s.Name, "image", pinned(to, digest), "bytes", l.size, "took", time.Since(began).Round(time.Millisecond))
	return digest, nil
}

// remember keeps the digests of a layer, without its file.
func (r *Registry) remember(a spillway.Artefact, l layer, err error) {
	if err != nil {
		return
	}
	l.file = ""
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.layers) >= 1000 { // a few hundred bytes each
		clear(r.layers)
	}
	r.layers[a.Digest] = l
}

// there reports whether a repository has an image.
func (r *Registry) there(ctx context.Context, repository name.Repository, digest v1.Hash) (bool, error) {
	_, err := r.look(ctx, repository.Digest(digest.String()))
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == 404 {
		return false, nil
	}
	return err == nil, err
}

// image is the image of an artefact: its layer upon the ground, and how it is run.
func (r *Registry) image(s spillway.Service, a spillway.Artefact, g ground, run program, l layer) (v1.Image, v1.Hash, error) {
	base, err := g.image.ConfigFile()
	if err != nil {
		return nil, v1.Hash{}, err
	}
	media, err := g.image.MediaType()
	if err != nil {
		return nil, v1.Hash{}, err
	}
	if media == types.DockerManifestSchema2 {
		l.media = types.DockerLayer // the two families of types are not mixed
	}
	image, err := mutate.Append(g.image, mutate.Addendum{Layer: l, History: history("the artefact of " + s.Name)})
	if err != nil {
		return nil, v1.Hash{}, err
	}
	config := base.DeepCopy()
	mutated, err := image.ConfigFile() // has the layers
	if err != nil {
		return nil, v1.Hash{}, err
	}
	config.RootFS, config.History = mutated.RootFS, mutated.History
	config.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	config.OS, config.Architecture = "linux", cmp.Or(base.Architecture, r.conf.Architecture)
	config.Config.WorkingDir = appDir
	config.Config.User = r.user(base.Config.User)
	config.Config.StopSignal = s.Stop.Signal
	if g.name == "" {
		config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	labels := map[string]string{artefactLabel: a.Digest}
	for k, v := range base.Config.Labels {
		labels[k] = cmp.Or(labels[k], v)
	}
	config.Config.Labels = labels
	if !s.Run.Zero() {
		config.Config.Cmd, config.Config.Entrypoint = nil, entrypoint(run)
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, v1.Hash{}, err
	}
	digest, err := image.Digest()
	return image, digest, err
}

// user is whom programs run as: who was chosen, else the base's user unless that is root.
func (r *Registry) user(base string) string {
	if r.conf.User != "" {
		return r.conf.User
	}
	name, _, _ := strings.Cut(base, ":")
	if name == "" || name == "root" || name == "0" {
		return nobody
	}
	return base
}

// entrypoint is what the image starts by itself: nothing where variables are to be put in.
func entrypoint(run program) []string {
	if run.words == nil {
		return []string{shell, "-c", run.line}
	}
	var words []string
	for _, w := range run.words {
		p := plain(w)
		if p == "" && w != "" {
			return nil
		}
		words = append(words, p)
	}
	return words
}
