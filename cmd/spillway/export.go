package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/oci"
)

// unknownRegistry stands in the names of images of which nobody said where they will be. No node can pull it.
const unknownRegistry = "REGISTRY"

func (c *cli) exportCommand() *cobra.Command {
	var o clusterOptions
	cmd := c.verb(groupWork, &cobra.Command{
		Use:   "export kubernetes|app [flags]",
		Short: "Print what an app file is on Kubernetes",
		Long: `Export prints, as YAML, the objects that a first release of the app file has on a cluster when
everybody has it: to read them, to check them, or to leave Spillway. Nothing is built, and no server or
cluster is asked. Who applies the output has the app without rollouts; a later deploy there takes it up.

An image is pinned by digest where --registry is given and has it. Of a service that is built the name
is where its image would be put, REGISTRY/APP-SERVICE:release-1, with a comment.

Export app prints the App, the resource whose spec is the app file: to apply it, by kubectl or from Git, is a
deploy by the server in that namespace.`,
		Example: `  spillway export kubernetes --gateway edge/public
  spillway export kubernetes --gateway edge/public --env staging --registry registry.example.com/shop
  spillway export app | kubectl apply -n shop -f -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] != "kubernetes" && args[0] != "app" {
				return usage("export to what? There is: spillway export kubernetes, and spillway export app")
			}
			for _, flag := range []string{"gateway", "registry", "insecure-registry"} {
				if args[0] == "app" && cmd.Flags().Changed(flag) {
					return usage("--%s is for export kubernetes: with an App, the server in the cluster has it", flag)
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "app" {
				return c.exportApp(o.namespace)
			}
			return c.exportKubernetes(cmd.Context(), o)
		},
	})
	o.on = true
	cmd.Flags().StringVar(&o.namespace, "namespace", "", "`NAME` of the namespace to write into the objects (default: none, so kubectl -n says)")
	cmd.Flags().StringVar(&o.gateway, "gateway", "", "`NAMESPACE/NAME[/LISTENER]` of the Gateway that users come in by")
	cmd.Flags().StringVar(&o.images.Repository, "registry", "", "`HOST/PATH` where the images of what is built are")
	cmd.Flags().StringSliceVar(&o.images.Insecure, "insecure-registry", nil, "`HOST` of a registry that is reached by plain HTTP")
	o.flavour = "traefik"
	return cmd
}

func (c *cli) exportKubernetes(ctx context.Context, o clusterOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	release, err := c.exported()
	if err != nil {
		return err
	}
	app := release.Config
	e := kube.Export{Namespace: o.namespace, Gateway: o.theGateway(), Comments: map[string]string{}, Release: release}
	var registry *oci.Registry
	if o.images.Repository != "" {
		o.images.Log = slog.New(slog.DiscardHandler)
		if registry, err = oci.New(o.images); err != nil {
			return err
		}
	}
	for _, s := range app.Services {
		image, comment, err := exportImage(ctx, registry, o.images.Repository, app.Name, s)
		if err != nil {
			return fmt.Errorf("service %s: %w", s.Name, err)
		}
		e.Release.Artefacts[s.Name], e.Comments[s.Name] = spillway.Artefact{Image: image}, comment
	}
	return e.Write(c.stdout)
}

// exported is the app file as a release without images, in the environment that was named.
func (c *cli) exported() (spillway.Release, error) {
	file, err := c.findFile("")
	if err != nil {
		return spillway.Release{}, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return spillway.Release{}, usage("read the app file: %w", err)
	}
	ref, err := c.inEnvironment(c.app)
	if err != nil {
		return spillway.Release{}, err
	}
	_, env, _ := strings.Cut(string(ref), "@")
	app, err := appfile.ParseEnvironment(file, text, env)
	if err != nil {
		return spillway.Release{}, err
	}
	c.warn(appfile.Warnings(file, text, env))
	return spillway.Release{App: refOf(app.Name, env), Config: app, File: string(text), Artefacts: map[string]spillway.Artefact{}}, nil
}

// exportApp prints the app file as the resource that the server takes from kubectl.
func (c *cli) exportApp(namespace string) error {
	release, err := c.exported()
	if err != nil {
		return err
	}
	for _, s := range release.Config.Services {
		if s.Image == "" {
			c.say("service %s is built: the server takes this App of kubectl or Git when %s has an image; spillway deploy needs none", s.Name, s.Name)
		}
	}
	return kube.Export{Namespace: namespace, Release: release}.WriteApp(c.stdout)
}

// exportImage is the image of a service, and what has to be said of it.
func exportImage(ctx context.Context, registry *oci.Registry, repository, app string, s spillway.Service) (image, comment string, err error) {
	image, comment = s.Image, "# The image is not pinned: no registry was asked (--registry)."
	if image == "" {
		if repository == "" {
			repository = unknownRegistry
		}
		image = fmt.Sprintf("%s/%s-%s:release-1", repository, app, s.Name)
		comment = fmt.Sprintf("# The image of service %s is built by spillway deploy; this is where it would be. Put one there, and pin it.", s.Name)
	}
	if registry == nil {
		return image, comment, nil
	}
	pinned, err := registry.Pin(ctx, image)
	switch {
	case err == nil:
		return pinned.Image, "", nil
	case s.Image == "" && errors.Is(err, spillway.ErrNotFound):
		return image, comment, nil
	case errors.Is(err, spillway.ErrUnavailable):
		return image, fmt.Sprintf("# The image is not pinned: %s.", strings.ReplaceAll(spillway.Text(err), "\n", " ")), nil
	}
	return "", "", err
}
