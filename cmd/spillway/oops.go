package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

// side is one of the two colours: what has the users, or what is in the dark.
type side struct {
	Color    string   `json:"color"`
	Release  int      `json:"release"`  // 0 = nothing is there
	Replicas []string `json:"replicas"` // addresses of those that are ready
}

// sides is what oops status prints.
type sides struct {
	Active side `json:"active"`
	Off    side `json:"off"`

	app     spillway.Ref
	preview []string // hosts that always reach the colour that is off
}

// oopsCommand is what the program is when it is called oops: a handful of words for people who have just let
// something out and want it back.
func (c *cli) oopsCommand() *cobra.Command {
	oops := &cobra.Command{
		Use:    "oops",
		Short:  "Undo deploys, keep your job",
		Long:   "Undo deploys, keep your job. Oops works on the app of the directory, or on the one of -a.",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	oops.PersistentFlags().StringVar(&c.file, "file", "", "the app file (default: spillway.yaml here or in a parent directory)")
	oops.PersistentFlags().StringVar(&c.env, "env", "", "the environment, like staging (default: production)")
	current := false
	rollback := &cobra.Command{
		Use: "rollback", Short: "Give everybody the release before, now",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if current {
				return c.oopsCurrent(cmd.Context())
			}
			return c.rollback(cmd.Context(), "", rollbackOptions{})
		},
	}
	rollback.Flags().BoolVarP(&current, "current", "c", false, "change nothing, say which colour is active and which is off")
	for _, cmd := range []*cobra.Command{
		{
			Use: "list", Aliases: []string{"l"}, Short: "What can be deployed, newest first",
			RunE: func(cmd *cobra.Command, _ []string) error { return c.oopsList(cmd.Context()) },
		},
		{
			Use: "deploy COMMIT|RELEASE", Short: "Let out a commit or a release that was built before",
			Args: func(_ *cobra.Command, args []string) error {
				if len(args) != 1 {
					return usage("which commit or release? There are: oops list")
				}
				return nil
			},
			RunE: func(cmd *cobra.Command, args []string) error { return c.oopsDeploy(cmd.Context(), args[0]) },
		},
		rollback,
		{
			Use: "status", Short: "One line of JSON: the active colour and the one that is off",
			RunE: func(cmd *cobra.Command, _ []string) error {
				now, err := c.sides(cmd.Context())
				if err != nil {
					return err
				}
				return c.printJSON(now)
			},
		},
		{
			Use: "off", Short: "Where the colour that is off can be looked at, and what is there",
			RunE: func(cmd *cobra.Command, _ []string) error { return c.oopsOff(cmd.Context()) },
		},
	} {
		if cmd.Args == nil {
			cmd.Args = atMost(0, "")
		}
		oops.AddCommand(cmd)
	}
	return oops
}

func (c *cli) oopsList(ctx context.Context) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	h, err := readHistory(ctx, client, app)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]any{"releases": h.all})
	}
	t := newTable(" ", "RELEASE", "COMMIT", "WHEN", "BY", "STATE")
	for _, r := range h.all {
		mark := " "
		if r.Number == serves(h.overview) {
			mark = "*"
		}
		t.row(mark, strconv.Itoa(r.Number), commit(r.Source), age(time.Now(), r.Created), r.By, h.state(r.Number))
	}
	return t.print(c.stdout)
}

func (c *cli) oopsDeploy(ctx context.Context, what string) error {
	if n, err := strconv.Atoi(what); err == nil && !commitForm.MatchString(what) {
		return c.redeploy(ctx, deployOptions{}, n, "")
	}
	if !commitForm.MatchString(what) {
		return usage("%q is neither a release nor a commit (7 to 40 of its digits); there are: oops list", what)
	}
	return c.redeploy(ctx, deployOptions{}, 0, what)
}

func (c *cli) oopsCurrent(ctx context.Context) error {
	now, err := c.sides(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(now)
	}
	c.print("Active color: %s", now.Active)
	c.print("Off color: %s", now.Off)
	return nil
}

// String is "'blue', release 7 at 127.0.0.1:20001, 127.0.0.1:20002".
func (s side) String() string {
	if s.Release == 0 {
		return fmt.Sprintf("'%s', nothing runs", s.Color)
	}
	where := "no replica ready"
	if len(s.Replicas) > 0 {
		where = "at " + strings.Join(s.Replicas, ", ")
	}
	return fmt.Sprintf("'%s', %s %s", s.Color, release(s.Release), where)
}

func (c *cli) oopsOff(ctx context.Context) error {
	now, err := c.sides(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(now.Off)
	}
	if now.Off.Release == 0 {
		return fmt.Errorf("nothing of %s is off: no release is warm in the dark, so a rollback starts one first", now.app)
	}
	where := "it has no host of its own; give it one in the app file: standby: {host: …}"
	if len(now.preview) > 0 {
		where = "look at it at " + strings.Join(now.preview, ", ")
	}
	c.print("Off color: %s; %s", now.Off, where)
	return nil
}

// sides says who has the users and who is in the dark, as the route that is served says it.
func (c *cli) sides(ctx context.Context) (sides, error) {
	client, app, err := c.target(ctx)
	if err != nil {
		return sides{}, err
	}
	o, err := client.Overview(ctx, app)
	if err != nil {
		return sides{}, err
	}
	active, off := bothReleases(o)
	now := sides{app: app, Active: side{Color: o.Color, Release: active}, Off: side{Color: otherColour(o.Color), Release: off}}
	replicas, err := client.Replicas(ctx, app)
	if err != nil {
		return now, err
	}
	for _, s := range []*side{&now.Active, &now.Off} {
		var r spillway.Release
		if s.Release != 0 {
			if r, err = client.Release(ctx, app, s.Release); err != nil {
				return now, err
			}
		}
		s.Replicas = addressesOf(r, replicas)
		if s == &now.Active {
			now.preview = previewsOf(r)
		}
	}
	return now, nil
}

// previewsOf are the hosts that a release gives to the colour that is off.
func previewsOf(r spillway.Release) []string {
	var hosts []string
	for _, s := range r.Config.Services {
		if s.Standby != nil {
			hosts = append(hosts, s.Standby.Host...)
		}
	}
	return hosts
}

// bothReleases are the release that has most of the users, and the other one that is there.
func bothReleases(o spillway.Overview) (active, off int) {
	if r := rolloutOf(o, ""); r != nil {
		if r.Served > spillway.Whole/2 {
			return r.Release, r.Stable
		}
		return r.Stable, r.Release
	}
	if o.Standby != nil {
		off = o.Standby.Release
	}
	return o.Stable, off
}

func otherColour(name string) string {
	switch name {
	case "blue":
		return "green"
	case "green":
		return "blue"
	default:
		return ""
	}
}

// addressesOf are the addresses of the ready replicas of a release's public services.
func addressesOf(r spillway.Release, replicas []spillway.Replica) []string {
	list := []string{}
	for _, s := range r.Config.Services {
		g, _ := r.Group(s.Name)
		for _, replica := range replicas {
			if s.Public() && replica.Group == g && replica.State == spillway.Ready {
				list = append(list, replica.Address)
			}
		}
	}
	return list
}
