package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/kube"
)

// thisMachine is the context that always is there: the server of --dir.
const thisMachine = "local"

// contextsVersion is the newest format of the file of contexts that this program reads, and the one that it writes.
const contextsVersion = 1

// contexts are the servers that a person gave names to.
type contexts struct {
	Version int     `json:"version"`
	Current string  `json:"current,omitempty"` // "" = this machine
	Places  []place `json:"contexts"`          // sorted by name
}

// place is where a server is. Without a URL and a cluster it is on this machine.
type place struct {
	Name       string     `json:"name"`
	Server     string     `json:"server,omitempty"` // URL
	Token      string     `json:"token,omitempty"`
	Kubernetes *inCluster `json:"kubernetes,omitempty"`
}

// inCluster is a server that kube install made.
type inCluster struct {
	Namespace  string `json:"namespace"`
	Kubeconfig string `json:"kubeconfig,omitempty"` // absolute; several as KUBECONFIG has them; "" = as kubectl
	Context    string `json:"context"`
}

// client reaches the server by the rights of who asks.
func (k inCluster) client() (*api.Client, error) {
	config, _, err := kube.Connect(k.Kubeconfig, k.Context, k.Namespace)
	if err != nil {
		return nil, err
	}
	remote, err := kube.NewRemote(config, k.Namespace)
	if err != nil {
		return nil, err
	}
	return api.NewClientOver(remote, remote.Place()), nil
}

// what says where a context leads.
func (p place) what() string {
	switch {
	case p.Kubernetes != nil:
		return fmt.Sprintf("namespace %s of kubectl's context %s", p.Kubernetes.Namespace, p.Kubernetes.Context)
	case p.Server != "":
		return p.Server
	}
	return "this machine"
}

// chosen is the place that a command is about: --context, else --server, else --dir, else the current context. Flags
// count more than variables, and variables more than what was chosen for all commands.
func (c *cli) chosen() (place, error) {
	otherDir := c.dir != c.defaultDir()
	switch {
	case c.context != "" && c.server != c.getenv("SPILLWAY_SERVER"):
		return place{}, usage("--context %s and --server contradict each other; leave one out", c.context)
	case c.context != "" && c.context != thisMachine && otherDir:
		return place{}, usage("--context %s and --dir contradict each other; leave one out", c.context)
	case c.context != "":
		known, err := c.contexts()
		if err != nil {
			return place{}, err
		}
		return known.find(c.context)
	case c.server != "":
		return place{Server: c.server}, nil
	case otherDir, c.getenv("SPILLWAY_DIR") != "":
		return place{Name: thisMachine}, nil
	}
	known, err := c.contexts()
	if err != nil {
		return place{}, err
	}
	return known.find(cmp.Or(known.Current, thisMachine))
}

// elsewhere reports that a command is not about this machine, so that nothing is started here for it.
func (c *cli) elsewhere() bool {
	at, err := c.chosen()
	return err != nil || at.Server != "" || at.Kubernetes != nil
}

// find gives a context by its name.
func (k contexts) find(name string) (place, error) {
	names := []string{thisMachine}
	for _, p := range k.Places {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	if name == thisMachine {
		return place{Name: thisMachine}, nil
	}
	return place{}, usage("there is no context %s; there is: %s. Add one: spillway context add %s --server URL, or --kubernetes --namespace NAME", name, strings.Join(names, ", "), name)
}

// contextsFile is where contexts are kept; "" when nothing says where a person's settings are.
func (c *cli) contextsFile() string {
	if dir := c.getenv("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "spillway", "contexts.json")
	}
	if home := c.getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "spillway", "contexts.json")
	}
	return ""
}

// contexts reads the file; there is none before the first context.
func (c *cli) contexts() (contexts, error) {
	known, file := contexts{Version: contextsVersion}, c.contextsFile()
	text, err := os.ReadFile(file)
	if file == "" || errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return known, fmt.Errorf("read the contexts: %w", err)
	}
	if err := json.Unmarshal(text, &known); err != nil {
		return known, usage("%s is damaged (%w); mend it, or remove it and add the contexts again", file, err)
	}
	if known.Version < 1 || known.Version > contextsVersion {
		return known, usage("%s has format %d, and this Spillway reads up to %d; use a newer one", file, known.Version, contextsVersion)
	}
	return known, nil
}

// keepContexts writes the file, which only its owner reads: it has tokens.
func (c *cli) keepContexts(known contexts) error {
	slices.SortFunc(known.Places, func(a, b place) int { return strings.Compare(a.Name, b.Name) })
	text, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return err
	}
	file := c.contextsFile()
	if file == "" {
		return usage("there is no place for contexts: set HOME or XDG_CONFIG_HOME")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), "contexts-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the contexts: %w", err), os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (c *cli) contextCommand() *cobra.Command {
	cmd := c.verb(groupWork, &cobra.Command{
		Use:   "context [flags]",
		Short: "Which server the commands are about: this machine, another, a cluster",
		Long: `Context gives names to servers, so that --context NAME on any command, or context use NAME for all
that follow, says where it goes. "local" is always there: the server of this machine. The names are in
a file that you alone can read, ~/.config/spillway/contexts.json, with the tokens.

What counts, from the first: --context, --server and --dir, SPILLWAY_SERVER and SPILLWAY_DIR, and
then context use.`,
		Example: `  spillway context
  spillway context add prod --server https://deploy.example.com --token -
  spillway context add shop --kubernetes --namespace shop
  spillway deploy --context shop                  # the same app file, on the cluster`,
		Args: atMost(0, ""),
		RunE: func(*cobra.Command, []string) error { return c.listContexts() },
	})
	named := func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("which context? One name is needed; spillway context lists those there are")
		}
		return nil
	}
	cmd.AddCommand(
		c.verb("", &cobra.Command{
			Use: "list", Short: "The contexts; the current one has a star",
			Long: "List prints the contexts and where they lead. The current one has a star.", Example: "  spillway context list",
			Args: atMost(0, ""), RunE: func(*cobra.Command, []string) error { return c.listContexts() },
		}),
		c.verb("", &cobra.Command{
			Use: "use NAME", Short: "Make a context the one of all commands that follow",
			Long:    "Use makes a context the current one: all commands that name no other are about it. \"local\" is this machine.",
			Example: "  spillway context use shop\n  spillway context use local",
			Args:    named, RunE: func(_ *cobra.Command, args []string) error { return c.useContext(args[0]) },
		}),
		c.addContextCommand(named),
		c.verb("", &cobra.Command{
			Use: "remove NAME", Short: "Forget a context",
			Long:    "Remove forgets a context and its token. Nothing is changed on the server.",
			Example: "  spillway context remove shop",
			Args:    named, RunE: func(_ *cobra.Command, args []string) error { return c.removeContext(args[0]) },
		}),
	)
	return cmd
}

// contextName is what a context may be called.
var contextName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

func (c *cli) addContextCommand(named cobra.PositionalArgs) *cobra.Command {
	var kubernetes bool
	var k inCluster
	cmd := c.verb("", &cobra.Command{
		Use:   "add NAME [flags]",
		Short: "Give a server a name",
		Long: `Add gives a name to the server at --server, with the --token that it wants ("-" reads it from the standard input,
where no history of a shell keeps it), or with --kubernetes to the server that kube install made in a namespace.

A server in a cluster has no address: commands reach it through the API server of the cluster, with your own
rights there. They take listing pods, creating pods/portforward, and getting the Secret spillway-token. What kubectl's
current context is now is kept, whatever it will be later.`,
		Example: `  spillway context add prod --server https://deploy.example.com --token - < token
  spillway context add shop --kubernetes --namespace shop --kube-context production`,
		Args: named,
		RunE: func(cmd *cobra.Command, args []string) error {
			p := place{Name: args[0]}
			if kubernetes {
				p.Kubernetes = &k
			}
			if err := c.addContext(p); err != nil || !kubernetes {
				return err
			}
			c.doubt(cmd.Context(), k)
			return nil
		},
	})
	cmd.Flags().BoolVar(&kubernetes, "kubernetes", false, "the server is in a cluster")
	cmd.Flags().StringVar(&k.Namespace, "namespace", "", "`NAME` of its namespace (default: that of kubectl's context)")
	cmd.Flags().StringVar(&k.Context, "kube-context", "", "`NAME` of kubectl's context (default: the current one)")
	cmd.Flags().StringVar(&k.Kubeconfig, "kubeconfig", "", "`FILE` that has it (default: as kubectl)")
	return cmd
}

// addContext checks a context and keeps it.
func (c *cli) addContext(p place) (err error) {
	server := c.server
	switch {
	case !contextName.MatchString(p.Name) || p.Name == thisMachine:
		return usage("a context cannot be called %q; write letters, digits, dots and dashes, and %s is taken", p.Name, thisMachine)
	case p.Kubernetes != nil && (server != c.getenv("SPILLWAY_SERVER") || c.token != ""):
		return usage("--kubernetes needs no --server and no --token: the cluster has them")
	case p.Kubernetes == nil && server == "":
		return usage("where is it? Write --server URL, or --kubernetes --namespace NAME")
	}
	known, err := c.contexts()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(known.Places, func(other place) bool { return other.Name == p.Name }) {
		return usage("there is a context %s already; remove it first: spillway context remove %s", p.Name, p.Name)
	}
	if p.Kubernetes != nil {
		err = c.pinCluster(p.Kubernetes)
	} else {
		p.Server = server
		if p.Token, err = c.givenToken(); err == nil {
			_, err = api.NewClient(p.Server, p.Token)
		}
	}
	if err != nil {
		return err
	}
	known.Places = append(known.Places, p)
	if err := c.keepContexts(known); err != nil {
		return err
	}
	c.say("%s is %s; for one command: --context %s, for all that follow: spillway context use %s", p.Name, p.what(), p.Name, p.Name)
	return nil
}

// doubt tells what keeps commands from a server in a cluster, if that answers at once. A context may be older than its server.
func (c *cli) doubt(ctx context.Context, k inCluster) {
	config, _, err := kube.Connect(k.Kubeconfig, k.Context, k.Namespace)
	if err != nil {
		return // it was read just now
	}
	remote, err := kube.NewRemote(config, k.Namespace)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := remote.Check(ctx); err != nil {
		c.say("note: %s", spillway.Text(err))
	}
}

// pinCluster writes down what kubectl's defaults are now, so that the context leads to the same cluster later: others may
// have a context of that name in other files.
func (c *cli) pinCluster(k *inCluster) (err error) {
	files := filepath.SplitList(cmp.Or(k.Kubeconfig, c.getenv("KUBECONFIG")))
	files = slices.DeleteFunc(files, func(file string) bool { return file == "" })
	if home := c.getenv("HOME"); home != "" && len(files) == 0 {
		own := filepath.Join(home, ".kube", "config")
		if _, err := os.Stat(own); err == nil {
			files = []string{own}
		}
	}
	for i := range files {
		if files[i], err = filepath.Abs(files[i]); err != nil {
			return usage("--kubeconfig %s: %w", files[i], err)
		}
	}
	k.Kubeconfig = strings.Join(files, string(os.PathListSeparator))
	if k.Context == "" {
		if k.Context, err = kube.CurrentContext(k.Kubeconfig); err != nil {
			return err
		}
	}
	_, k.Namespace, err = kube.Connect(k.Kubeconfig, k.Context, k.Namespace)
	return err
}

// givenToken is the token of --token or of the environment; "-" is read.
func (c *cli) givenToken() (string, error) {
	token := cmp.Or(c.token, c.getenv("SPILLWAY_TOKEN"))
	if token != "-" {
		return token, nil
	}
	line, err := bufio.NewReader(c.stdin).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return "", usage("--token -: there is no token on the standard input: %w", cmp.Or(err, spillway.ErrInvalid))
	}
	return line, nil
}

func (c *cli) useContext(name string) error {
	known, err := c.contexts()
	if err != nil {
		return err
	}
	p, err := known.find(name)
	if err != nil {
		return err
	}
	if known.Current = name; name == thisMachine {
		known.Current = ""
	}
	if err := c.keepContexts(known); err != nil {
		return err
	}
	c.say("commands are about %s now", p.what())
	for _, variable := range []string{"SPILLWAY_SERVER", "SPILLWAY_DIR"} {
		if value := c.getenv(variable); value != "" {
			c.say("but here %s=%s counts more", variable, value)
		}
	}
	return nil
}

func (c *cli) removeContext(name string) error {
	known, err := c.contexts()
	if err != nil {
		return err
	}
	if name == thisMachine {
		return usage("%s is always there", thisMachine)
	}
	if _, err := known.find(name); err != nil {
		return err
	}
	known.Places = slices.DeleteFunc(known.Places, func(p place) bool { return p.Name == name })
	if known.Current == name {
		known.Current = ""
		c.say("commands are about this machine now")
	}
	return c.keepContexts(known)
}

// contextLine is a context as it is listed, without its token.
type contextLine struct {
	Name       string     `json:"name"`
	Current    bool       `json:"current,omitempty"`
	Server     string     `json:"server,omitempty"`
	Kubernetes *inCluster `json:"kubernetes,omitempty"`
}

func (c *cli) listContexts() error {
	known, err := c.contexts()
	if err != nil {
		return err
	}
	var lines []contextLine
	var b strings.Builder
	for _, p := range append([]place{{Name: thisMachine}}, known.Places...) {
		current := p.Name == cmp.Or(known.Current, thisMachine)
		lines = append(lines, contextLine{p.Name, current, p.Server, p.Kubernetes})
		fmt.Fprintf(&b, "%s %-12s  %s\n", map[bool]string{true: "*", false: " "}[current], p.Name, p.what())
	}
	if c.json {
		return c.printJSON(lines)
	}
	_, err = c.stdout.Write([]byte(b.String()))
	return err
}

// completeContexts lists the contexts.
func (c *cli) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	known, _ := c.contexts() // without an answer there is nothing to offer
	names := []string{thisMachine}
	for _, p := range known.Places {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
