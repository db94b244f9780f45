package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/oci"
)

// serverImage is the last part of the name of an image that is made of this program.
const serverImage = "spillway-server"

// imageOptions say what the image of a server is made of.
type imageOptions struct {
	program string // file; "" = this program
	base    string // "" = none
}

func (o *imageOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.program, "program", "", "`FILE` of a static program spillway for Linux to make the server's image of (default: this program)")
	flags.StringVar(&o.base, "server-base", "", "`IMAGE` that the server is put upon, with what builds your apps, such as golang:1.26 (default: none)")
}

func (c *cli) kubeImageCommand() *cobra.Command {
	var o imageOptions
	var to oci.Config
	cmd := c.verb("", &cobra.Command{
		Use:   "image --registry HOST/PATH [flags]",
		Short: "Make the image of the server, and put it into a registry",
		Long: `Image makes an image of this program, puts it into a registry as HOST/PATH/spillway-server, and prints its name with
its digest. No Docker is needed. kube install and kube upgrade do the same by themselves when they are told a
registry and no image: this command is for pipelines, and to see what would be installed.

The program has to be a static one for Linux and for the processors of the nodes, as those that are released
are. On a machine of another kind name one: --program FILE. In the image it runs as user 65532.

Without --server-base the image holds the program, the certificate authorities of this machine and nothing else:
such a server releases apps of images. What is to be built from source is built by the tools in the image:
--server-base golang:1.26 for what go build builds.

Credentials are docker's: docker login HOST. The nodes have to be allowed to pull the image.`,
		Example: `  spillway kube image --registry registry.example.com/shop --server-base golang:1.26
  spillway kube install --print --namespace shop --image "$(spillway kube image --registry registry.example.com/shop)"`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to.Repository == "" {
				return usage("where is the image to be put? Write --registry HOST/PATH, such as registry.example.com/shop")
			}
			file, architecture, err := c.serverProgram(o, nil)
			if err != nil {
				return err
			}
			image, err := c.pushServer(cmd.Context(), file, architecture, o.base, to)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"image": image})
			}
			c.print("%s", image)
			return nil
		},
	})
	cmd.Flags().StringVar(&to.Repository, "registry", "", "`HOST/PATH` where the image is put, as HOST/PATH/"+serverImage)
	cmd.Flags().StringSliceVar(&to.Insecure, "insecure-registry", nil, "`HOST` of a registry that is reached by plain HTTP")
	o.bind(cmd.Flags())
	return cmd
}

// serverProgram is the file that the image of a server is made of, and what it is built for. nodes are the architectures
// that it may be built for; nil = any.
func (c *cli) serverProgram(o imageOptions, nodes []string) (file, architecture string, err error) {
	if file = cmp.Or(o.program, c.self); file == "" {
		if file, err = os.Executable(); err != nil {
			return "", "", err
		}
	}
	const other = "name a static program spillway of the same version for Linux: --program FILE; or an image that has one: --image IMAGE"
	architecture, err = oci.Static(file)
	if err != nil {
		return "", "", fmt.Errorf("no image of the server can be made: %s; %s: %w", spillway.Text(err), other, spillway.ErrInvalid)
	}
	if len(nodes) > 0 && !slices.Contains(nodes, architecture) {
		return "", "", fmt.Errorf("no image of the server can be made: %s is built for %s, and the nodes are %s; %s: %w", file, architecture, strings.Join(nodes, ", "), other, spillway.ErrInvalid)
	}
	return file, architecture, nil
}

// pushServer puts the image of a program that is built for an architecture into a registry, upon the base, and gives its
// name by digest.
func (c *cli) pushServer(ctx context.Context, file, architecture, base string, to oci.Config) (image string, err error) {
	dir, err := os.MkdirTemp("", "spillway-image-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := copyProgram(file, filepath.Join(dir, "spillway")); err != nil {
		return "", fmt.Errorf("copy the program: %w", err)
	}
	to.Base, to.Architecture, to.Temp = base, architecture, ""
	to.Log = slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	registry, err := oci.New(to)
	if err != nil {
		return "", err
	}
	c.say("putting the server into the registry, as %s/%s", to.Repository, serverImage)
	s := spillway.Service{Name: strings.TrimPrefix(serverImage, "spillway-"), Run: spillway.Command{Exec: []string{"/app/spillway"}}}
	made, err := registry.Push(ctx, "spillway", s, spillway.Artefact{Dir: dir, Digest: "sha256:" + digestFile(file)})
	if err != nil {
		return "", fmt.Errorf("the image of the server: %w", err)
	}
	return made.Image, nil
}

// withImage gives a server the image of this program where nobody named another, or where another that was named cannot
// run. A program that no image can be made of leaves the image that there is.
func (c *cli) withImage(ctx context.Context, installer *kube.Installer, o kubeOptions, given *pflag.FlagSet, s kube.Server) (kube.Server, error) {
	to := oci.Config{Repository: flagOf(s.Flags, "registry"), Insecure: strings.FieldsFunc(flagOf(s.Flags, "insecure-registry"), func(r rune) bool { return r == ',' })}
	if to.Repository == "" && given.Changed("program") || to.Repository == "" && given.Changed("server-base") {
		return s, usage("an image of the server is to be made, and no registry is known to put it into: add --registry HOST/PATH")
	}
	if given.Changed("image") || to.Repository == "" {
		return s, nil
	}
	makes, why := madeAnew(s.Image, given, func() string { return installer.ImageProblem(ctx, s) })
	if why != "" {
		c.say("%s", why)
	}
	if !makes {
		return s, nil
	}
	if err := installer.CheckPlace(ctx, s); err != nil { // before something is sent
		return s, err
	}
	nodes, err := installer.Architectures(ctx)
	if err != nil {
		return s, err
	}
	file, architecture, err := c.serverProgram(o.made, nodes)
	if err != nil && s.Image != "" && !given.Changed("program") && !given.Changed("server-base") {
		c.say("the server keeps its image: %s", spillway.Text(err))
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if given.Changed("server-base") || s.Image == "" {
		s.Base = o.made.base
	}
	s.Architecture = architecture
	s.Image, err = c.pushServer(ctx, file, architecture, s.Base, to)
	return s, err
}

// madeAnew says whether a server that has an image, "" = none, gets another that is made of a program, when none is
// named; and why, where that is not plain. An image that somebody named before is kept while nothing else is asked for
// and problem, which is what keeps it from running, is nothing.
func madeAnew(image string, given *pflag.FlagSet, problem func() string) (makes bool, why string) {
	if image == "" || strings.Contains(image, "/"+serverImage+"@") || given.Changed("program") || given.Changed("server-base") {
		return true, ""
	}
	if wrong := problem(); wrong != "" {
		return true, fmt.Sprintf("the server does not run with the image %s, which was named before (%s): it gets one that is made here", image, wrong)
	}
	return false, fmt.Sprintf("the server keeps the image %s, which was named before; for another: --image IMAGE, and for one that is made: --program FILE", image)
}

// check finds flags of an image that say nothing, or two things.
func (o *kubeOptions) check(given *pflag.FlagSet) error {
	if given.Changed("image") && o.image == "" {
		return usage("--image names nothing: write --image IMAGE, or leave it out to have one made of this program, which needs --registry")
	}
	if given.Changed("program") && o.made.program == "" {
		return usage("--program names nothing: write --program FILE, or leave it out for this program")
	}
	for _, flag := range []string{"program", "server-base"} {
		switch {
		case !given.Changed(flag):
		case o.image != "":
			return usage("--%s is of an image that is made, and --image %s is one that there is: leave one of them out", flag, o.image)
		case o.print:
			return usage("--print makes no image, so --%s is of no use: make one by spillway kube image, which has that flag, and name it with --image", flag)
		}
	}
	return nil
}

// flagOf is the value of a flag among those of a server; "" when it is not there.
func flagOf(flags []string, name string) string {
	for _, flag := range flags {
		if value, ok := strings.CutPrefix(flag, "--"+name+"="); ok {
			return value
		}
	}
	return ""
}
