package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/kube"
)

// kubeOptions are the flags of kube install and kube upgrade.
type kubeOptions struct {
	cluster  clusterOptions
	image    string
	made     imageOptions // where no image is named
	replicas int
	print    bool
	wait     time.Duration
}

func (c *cli) kubeCommand() *cobra.Command {
	cmd := c.verb(groupWork, &cobra.Command{
		Use:   "kube",
		Short: "Install Spillway on Kubernetes",
		Long: `Kube puts what Spillway needs into a cluster, and takes it away. It acts with your rights, as kubectl does.

A server works in one namespace and has rights in that one alone, but for reading its gateway and which
replicas that has, where these are elsewhere. Its API is open to nobody: it listens inside of its pod. Who
may forward a port to a pod there and read the Secret spillway-token reaches it:
spillway context add NAME --kubernetes --namespace NS`,
		Example: `  spillway kube install --namespace shop --gateway edge/public --registry registry.example.com/shop
  spillway kube uninstall --namespace shop`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	})
	cmd.AddCommand(c.kubeInstallCommand(), c.kubeUpgradeCommand(), c.kubeImageCommand(), c.kubeUninstallCommand())
	return cmd
}

func (c *cli) kubeInstallCommand() *cobra.Command {
	var o kubeOptions
	cmd := c.verb("", &cobra.Command{
		Use:   "install [flags]",
		Short: "Install the definitions, and with --registry or --image a server",
		Long: `Install applies the definitions of App and Release to the cluster and, with --registry or --image, a server to the
namespace: its ServiceAccount, the Role that it needs and no more, the Secret with its token, a
PodDisruptionBudget and a Deployment. Two replicas share the work: one leads and decides, and the other takes
over when it ends.

The server is this program: an image of it is made and put into the registry, without Docker. See kube image --help
for what is in it, and for machines that are not like the nodes. An app of images alone needs nothing else; for apps
that the server is to build, add what builds them: --server-base golang:1.26. IMAGE is another image, whose
entry point is the program spillway.

What was installed before is kept where no flag says otherwise. An object that has the name of one of ours and
is not is left alone, and nothing is changed then. --print writes what would be applied, and asks no cluster.`,
		Example: `  spillway kube install                                    # only the definitions, for a server elsewhere
  spillway kube install --namespace shop --gateway edge/public --registry registry.example.com/shop --server-base golang:1.26
  spillway kube install --namespace shop --image registry.example.com/spillway:1 --print | less`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.kubeInstall(cmd, o, false) },
	})
	o.bind(cmd.Flags())
	return cmd
}

func (c *cli) kubeUpgradeCommand() *cobra.Command {
	var o kubeOptions
	cmd := c.verb("", &cobra.Command{
		Use:   "upgrade [flags]",
		Short: "Replace the server by a newer one, or give it other flags",
		Long: `Upgrade applies the definitions and the server of this program again. The flags that the server has are kept
where no flag says otherwise, as are its token and all apps. Where the image of the server was made of a program
spillway, or is one that the nodes cannot run, it is made of this one now; another image is kept without --image,
--program and --server-base. A new server is started before an old one ends, and users are served by the gateway
meanwhile. It needs a server that install made.`,
		Example: `  spillway kube upgrade --namespace shop                   # to this program
  spillway kube upgrade --namespace shop --image registry.example.com/spillway:2
  spillway kube upgrade --namespace shop --prometheus http://prometheus.monitoring:9090`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.kubeInstall(cmd, o, true) },
	})
	o.bind(cmd.Flags())
	return cmd
}

// bind adds the flags; all of a server on a cluster are among them.
func (o *kubeOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.image, "image", "", "`IMAGE` of the server (default: one is made of this program, where there is --registry)")
	o.made.bind(flags)
	flags.IntVar(&o.replicas, "replicas", 2, "of the server: `N`; one of them leads")
	flags.BoolVar(&o.print, "print", false, "print what would be applied, as YAML")
	flags.DurationVar(&o.wait, "wait", 2*time.Minute, "`TIME` to wait for the server to run; 0 = not at all")
	o.cluster.bind(flags)
}

// bind adds the flags of server that are about a cluster.
func (o *clusterOptions) bind(flags *pflag.FlagSet) {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.flags(all)
	all.VisitAll(func(f *pflag.Flag) {
		if f.Name != "kubernetes" {
			flags.AddFlag(f)
		}
	})
	o.on = true
}

// reaching are the flags that say how the cluster is reached from here; a server in it knows by itself.
func reaching(flag string) bool {
	return slices.Contains([]string{"kubeconfig", "kube-context", "namespace"}, flag)
}

// serverFlags are the flags of the server as they were given, and those of before that were not.
func serverFlags(given *pflag.FlagSet, before []string) []string {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(clusterOptions).flags(all)
	var flags []string
	for _, flag := range before {
		name, _, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		if f := given.Lookup(name); f == nil || !f.Changed {
			flags = append(flags, flag)
		}
	}
	all.VisitAll(func(known *pflag.Flag) {
		f := given.Lookup(known.Name)
		if f == nil || !f.Changed || reaching(f.Name) {
			return
		}
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		if value != "" { // --registry "" takes the flag away
			flags = append(flags, "--"+f.Name+"="+value)
		}
	})
	return flags
}

// kubeInstall applies or prints an installation. With upgrade there has to be one.
func (c *cli) kubeInstall(cmd *cobra.Command, o kubeOptions, upgrade bool) error {
	if err := o.cluster.check(); err != nil {
		return err
	}
	if o.replicas < 1 {
		return usage("--replicas %d: at least one has to run", o.replicas)
	}
	if err := o.check(cmd.Flags()); err != nil {
		return err
	}
	token, file, err := api.NewToken(time.Now())
	if err != nil {
		return err
	}
	s := kube.Server{
		Namespace: o.cluster.namespace, Gateway: o.cluster.theGateway(), Image: o.image, Replicas: o.replicas,
		Flags: serverFlags(cmd.Flags(), nil), Token: map[string][]byte{kube.TokenKey: []byte(token), kube.TokensKey: file},
	}
	if o.print {
		if s.Image == "" && flagOf(s.Flags, "registry") != "" {
			return usage("--print makes no image: name one with --image; spillway kube image makes it")
		}
		if s.Image != "" && s.Namespace == "" {
			return usage("--print asks no cluster, so say which namespace: --namespace NAME")
		}
		return kube.PrintInstallation(c.stdout, appfile.Schema(), s)
	}
	installer, namespace, err := c.installer(o.cluster)
	if err != nil {
		return err
	}
	s.Namespace = namespace
	before, err := installer.Installed(cmd.Context(), namespace)
	switch {
	case err == nil:
		s = keeping(cmd.Flags(), s, before)
		if err := together(s.Flags); err != nil {
			return err
		}
	case !errors.Is(err, spillway.ErrNotFound):
		return err
	case upgrade:
		return fmt.Errorf("%s; install one first: spillway kube install --namespace %s --registry HOST/PATH: %w", spillway.Text(err), namespace, spillway.ErrNotFound)
	}
	if s, err = c.withImage(cmd.Context(), installer, o, cmd.Flags(), s); err != nil {
		return err
	}
	if s.Image != "" {
		c.say("the image of the server is %s", s.Image)
	}
	if err := installer.Install(cmd.Context(), appfile.Schema(), s); err != nil {
		return err
	}
	return c.installed(cmd.Context(), installer, s, o)
}

// keeping gives the server that is wanted, where no flag says otherwise as it was before.
func keeping(given *pflag.FlagSet, wanted, before kube.Server) kube.Server {
	wanted.Flags = serverFlags(given, before.Flags)
	wanted.Base = before.Base // also under an image that is named: the next one that is made is put upon it
	if !given.Changed("image") {
		wanted.Image, wanted.Architecture = before.Image, before.Architecture
	}
	if !given.Changed("replicas") {
		wanted.Replicas = before.Replicas
	}
	if !given.Changed("gateway") {
		wanted.Gateway = before.Gateway
	}
	return wanted
}

// together checks the flags of a server that were given with those that it keeps: it would not start.
func together(flags []string) error {
	var o clusterOptions
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.flags(all)
	err := all.Parse(flags)
	if o.on = true; err == nil {
		err = o.check()
	}
	if err != nil {
		return usage("with the flags that the server keeps: %s; take one away by giving it no value: --NAME=", spillway.Text(err))
	}
	return nil
}

// installed waits for a server that was applied, and says what comes next.
func (c *cli) installed(ctx context.Context, installer *kube.Installer, s kube.Server, o kubeOptions) error {
	if s.Image == "" {
		c.say("there is no server in the cluster yet: install it with --registry or --image, or run one here: spillway server --kubernetes --namespace %s", s.Namespace)
		return nil
	}
	if s.Replicas == 0 { // somebody stopped it, and it stays so
		c.say("the server is applied in namespace %s with 0 replicas, as it was: nothing is decided until it runs: spillway kube upgrade --namespace %[1]s --replicas 1", s.Namespace)
		return nil
	}
	if o.wait > 0 {
		c.say("waiting for the server")
		if err := installer.Await(ctx, s.Namespace, o.wait); err != nil {
			return err
		}
	}
	if s.Gateway.Name == "" {
		c.say("without --gateway public services are Services, which divide users by replicas, and no release is judged: a canary rests at each step until a person resumes it")
	} else if !slices.ContainsFunc(s.Flags, func(f string) bool {
		return strings.HasPrefix(f, "--gateway-metrics=") || strings.HasPrefix(f, "--prometheus=")
	}) {
		c.say("without --gateway-metrics or --prometheus no release is judged: a rollout waits at its first step until somebody promotes it")
	}
	c.say("%s in namespace %s; to use it: %s", map[bool]string{true: "the server runs", false: "the server is applied"}[o.wait > 0], s.Namespace,
		c.wayTo(inCluster{Namespace: s.Namespace, Kubeconfig: o.cluster.kubeconfig, Context: o.cluster.context}))
	return nil
}

// wayTo is the command by which commands are about a server in a cluster: one that uses the context that leads there, or
// that adds it.
func (c *cli) wayTo(k inCluster) string {
	add := fmt.Sprintf("spillway context add %s --kubernetes --namespace %s", k.Namespace, k.Namespace)
	if k.Kubeconfig != "" {
		add += " --kubeconfig " + k.Kubeconfig
	}
	if k.Context != "" {
		add += " --kube-context " + k.Context
	}
	known, err := c.contexts()
	if c.pinCluster(&k) != nil || err != nil {
		return add
	}
	for _, p := range known.Places {
		if p.Kubernetes != nil && *p.Kubernetes == k {
			return "spillway context use " + p.Name
		}
	}
	return add
}

// installer reaches the cluster and tells on the way what it does there.
func (c *cli) installer(o clusterOptions) (*kube.Installer, string, error) {
	config, namespace, err := kube.Connect(o.kubeconfig, o.context, o.namespace)
	if err != nil {
		return nil, "", err
	}
	installer, err := kube.NewInstaller(config, func(format string, args ...any) { c.print(format, args...) })
	return installer, namespace, err
}

// uninstallOptions are the flags of kube uninstall.
type uninstallOptions struct {
	cluster     clusterOptions
	yes         bool
	destroy     bool
	definitions bool
	wait        time.Duration
}

func (c *cli) kubeUninstallCommand() *cobra.Command {
	var o uninstallOptions
	cmd := c.verb("", &cobra.Command{
		Use:   "uninstall [flags]",
		Short: "Remove the server of a namespace",
		Long: `Uninstall removes the server of a namespace, with its rights and its token. While there are apps in the namespace it
says what is to become of them, or does nothing:

-y leaves them behind. They go on serving, but nobody steers, judges or restores them until a server is installed
again, which takes them up as they are. Nothing waits for a server meanwhile: the finalizers of the Apps go, so that
they and the namespace can be deleted. Nor does an App own what runs any more: when somebody deletes it, or the
definitions and all Apps with them, users are served all the same. What is left then is deleted with kubectl; the
command is told at the end.

--destroy has the server destroy them first, as spillway destroy does: it ends what serves users.

The definitions stay, and with them what was ever deployed. --definitions removes them too, for all of the cluster. It
refuses while there is an app in any namespace, whatever else is said.`,
		Example: `  spillway kube uninstall --namespace shop
  spillway kube uninstall --namespace shop -y             # apps go on without a server
  spillway kube uninstall --namespace shop --destroy      # no app is left
  spillway kube uninstall --namespace shop --definitions  # the last of all`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.kubeUninstall(cmd.Context(), o)
		},
	})
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "leave apps behind without a server")
	cmd.Flags().BoolVar(&o.destroy, "destroy", false, "destroy the apps of the namespace first, and all that serves users with them")
	cmd.Flags().BoolVar(&o.definitions, "definitions", false, "remove App and Release from the cluster too, with all history")
	cmd.Flags().DurationVar(&o.wait, "wait", 5*time.Minute, "`TIME` that --destroy may take")
	cmd.Flags().StringVar(&o.cluster.kubeconfig, "kubeconfig", "", "`FILE` that says how the cluster is reached (default: as kubectl)")
	cmd.Flags().StringVar(&o.cluster.context, "kube-context", "", "`NAME` of the context in it")
	cmd.Flags().StringVar(&o.cluster.namespace, "namespace", "", "`NAME` of the namespace (default: that of the context)")
	return cmd
}

func (c *cli) kubeUninstall(ctx context.Context, o uninstallOptions) error {
	if o.yes && o.destroy {
		return usage("-y leaves the apps behind and --destroy does not; say one of them")
	}
	installer, namespace, err := c.installer(o.cluster)
	if err != nil {
		return err
	}
	within := map[bool]string{false: namespace, true: ""}[o.definitions]
	apps, err := installer.Apps(ctx, within)
	if err != nil {
		return err
	}
	stay := apps
	if o.destroy {
		stay = slices.DeleteFunc(slices.Clone(apps), func(app string) bool { return strings.HasPrefix(app, namespace+"/") })
	}
	switch {
	case len(stay) > 0 && o.definitions:
		return fmt.Errorf("there are apps in the cluster: %s; the definitions hold their history, and nothing was changed. Destroy them first, each by the server of its namespace: spillway destroy -a NAME: %w",
			strings.Join(stay, ", "), spillway.ErrConflict)
	case len(stay) > 0 && !o.yes:
		return fmt.Errorf("there are apps in namespace %s: %s; nothing was changed. Destroy them first: --destroy; or let them serve on without a server: -y: %w",
			namespace, strings.Join(stay, ", "), spillway.ErrConflict)
	}
	if o.destroy && len(apps) > 0 {
		c.say("destroying %s", strings.Join(apps, ", "))
		if err := installer.Destroy(ctx, namespace, o.wait); err != nil {
			return err
		}
	}
	if err := installer.Uninstall(ctx, namespace, haltWithin); err != nil {
		return err
	}
	if o.definitions {
		return installer.Undefine(ctx, appfile.Schema())
	}
	if len(stay) > 0 {
		c.say("%s: users are served on, without a server; spillway kube install --namespace %s takes them up again. An App that is deleted until then is only forgotten; what it ran is deleted by: %s",
			strings.Join(stay, ", "), namespace, kube.Orphans(namespace))
	}
	return nil
}
