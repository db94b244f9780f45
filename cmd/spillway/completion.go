package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func (c *cli) completionCommand() *cobra.Command {
	return c.verb(groupWork, &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Completion of commands, apps, releases and services for a shell",
		Long:  "Completion prints a script that makes a shell complete spillway's commands and names.",
		Example: `  source <(spillway completion bash)
  spillway completion zsh > "${fpath[1]}/_spillway"
  spillway completion fish > ~/.config/fish/completions/spillway.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "zsh":
				return root.GenZshCompletion(c.stdout)
			case "fish":
				return root.GenFishCompletion(c.stdout, true)
			default:
				return root.GenBashCompletionV2(c.stdout, true)
			}
		},
	})
}

// completion is cobra's form of a function that proposes words.
type completion = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective)

// complete gives a flag its proposals.
func (c *cli) complete(cmd *cobra.Command, flag string, f completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // the flag does not exist: a mistake in this program
	}
}

// propose asks the server for words, briefly: a completion must not hang.
func (c *cli) propose(words func(context.Context, *api.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), c.brief) // cobra gives none here
	defer cancel()
	client, err := c.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := words(ctx, client)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) completeApps(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return c.propose(func(ctx context.Context, client *api.Client) ([]string, error) {
		apps, err := client.Apps(ctx)
		var list []string
		for _, a := range apps {
			list = append(list, string(a))
		}
		return list, err
	})
}

func (c *cli) completeReleases(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, directive := c.propose(func(ctx context.Context, client *api.Client) ([]string, error) {
		app, err := c.pickApp(ctx, client)
		if err != nil {
			return nil, err
		}
		all, err := client.Releases(ctx, app)
		var list []string
		for _, r := range all {
			list = append(list, strconv.Itoa(r.Number)+"\t"+strings.TrimSpace(commit(r.Source)+" "+r.Note))
		}
		return list, err
	})
	if cmd.Name() == "deploy" {
		directive = cobra.ShellCompDirectiveDefault // a directory is as good
	}
	return list, directive
}

func (c *cli) completeTracks(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return c.propose(func(ctx context.Context, client *api.Client) ([]string, error) {
		app, err := c.pickApp(ctx, client)
		if err != nil {
			return nil, err
		}
		o, err := client.Overview(ctx, app)
		list := []string{"stable"}
		for _, t := range o.Tracks {
			if len(t.URLs) == 0 {
				list = append(list, t.Name)
			}
		}
		return list, err
	})
}

func (c *cli) completeServices(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.serviceNames("")
}

func (c *cli) completeScale(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	list, directive := c.serviceNames("=")
	return list, directive | cobra.ShellCompDirectiveNoSpace
}

func (c *cli) serviceNames(suffix string) ([]string, cobra.ShellCompDirective) {
	return c.propose(func(ctx context.Context, client *api.Client) ([]string, error) {
		app, err := c.pickApp(ctx, client)
		if err != nil {
			return nil, err
		}
		o, err := client.Overview(ctx, app)
		var list []string
		for _, s := range o.Services {
			list = append(list, s.Name+suffix)
		}
		return list, err
	})
}

func completeStrategies(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var list []string
	for _, s := range spillway.Strategies {
		list = append(list, string(s))
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
