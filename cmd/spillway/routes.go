package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/proxy"
)

func (c *cli) routesCommand() *cobra.Command {
	cmd := c.verb(groupWatch, &cobra.Command{
		Use:   "routes [flags]",
		Short: "What the proxy does with the requests to each host",
		Long: `Routes prints the table that the proxy serves: for each host the rules in the order in which they are
tried, where they lead by the weights of this moment, and what else they do. With -f it is the table of
an app file as if that were deployed alone, and no server is asked.`,
		Example: `  spillway routes
  spillway routes --json
  spillway routes -f spillway.yaml                      before it is deployed
  spillway routes test POST https://shop.example.com/api/x`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.routes(cmd.Context()) },
	})
	cmd.AddCommand(c.routesTestCommand())
	return cmd
}

func (c *cli) routesTestCommand() *cobra.Command {
	var q spillway.RouteQuery
	var headers []string
	cmd := c.verb("", &cobra.Command{
		Use:   "test [METHOD] URL [flags]",
		Short: "Which rule a request would go by, and why no other",
		Long: `Test says what would become of a request, without making it: which rule counts and why the others do
not, what the service would be asked for, and which release the user would get. The proxy says so, by
the code that a request goes through. With -f the app file is asked instead, as if it were deployed alone.
Exit codes: 0 somebody answers, 1 nobody does.`,
		Example: `  spillway routes test https://shop.example.com/api/x
  spillway routes test POST https://shop.example.com/api/x -H 'X-Beta: 1'
  spillway routes test https://shop.example.com/ --as 4711
  spillway routes test https://shop.example.com/admin --client 10.1.2.3 -f spillway.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return usage("which request? Like spillway routes test POST https://shop.example.com/api/x")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Method, q.URL = "GET", args[len(args)-1]
			if len(args) == 2 {
				q.Method = strings.ToUpper(args[0])
			}
			if !strings.Contains(q.URL, "://") {
				q.URL = "http://" + q.URL
			}
			for _, h := range headers {
				name, value, ok := strings.Cut(h, ":")
				if name = strings.TrimSpace(name); !ok || name == "" {
					return usage("-H %q: a header is written as 'Name: value'", h)
				}
				q.Header = append(q.Header, spillway.HeaderField{Name: name, Value: strings.TrimSpace(value)})
			}
			return c.testRoute(cmd.Context(), q)
		},
	})
	flags := cmd.Flags()
	flags.StringArrayVarP(&headers, "header", "H", nil, "a header of the request, as `'NAME: VALUE'`; may be given again")
	flags.StringVar(&q.Key, "as", "", "the `KEY` of the user: what the header or cookie of cohort would carry")
	flags.StringVar(&q.Client, "client", "", "the `ADDRESS` that it would come from")
	flags.StringVarP(&c.file, "file", "f", "", "ask this app file, and not what is deployed")
	flags.StringVar(&c.env, "env", "", "the environment, like staging (default: production)")
	return cmd
}

// drafted is the table of the app file that -f names; false when none is named.
func (c *cli) drafted() (spillway.Table, bool, error) {
	if c.file == "" {
		return spillway.Table{}, false, nil
	}
	file, err := c.findFile("")
	if err != nil {
		return spillway.Table{}, false, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return spillway.Table{}, false, usage("read the app file: %w", err)
	}
	config, err := appfile.ParseEnvironment(file, text, c.env)
	if err != nil {
		return spillway.Table{}, false, err
	}
	c.warn(appfile.Warnings(file, text, c.env))
	return draft(refOf(config.Name, c.env), config), true, nil
}

// warn tells what can hardly be meant in an app file.
func (c *cli) warn(doubts spillway.FieldErrors) {
	for _, doubt := range doubts {
		c.say("warning: %s", clean(doubt.Error()))
	}
}

func (c *cli) routes(ctx context.Context) error {
	table, local, err := c.drafted()
	var lines []spillway.RouteLine
	switch {
	case err != nil:
	case local:
		lines, err = proxy.Lines(table)
	default:
		client, app, failed := c.target(ctx)
		if failed != nil {
			return failed
		}
		lines, err = client.Routes(ctx, app)
	}
	switch {
	case err != nil:
		return err
	case c.json:
		return c.printJSON(lines)
	case len(lines) == 0:
		c.say("the proxy answers to no host of the app; write host: shop.localhost for a service, or routes:")
		return nil
	}
	return routeTable(lines).print(c.stdout)
}

func (c *cli) testRoute(ctx context.Context, q spillway.RouteQuery) error {
	table, local, err := c.drafted()
	var answer spillway.RouteAnswer
	switch {
	case err != nil:
	case local:
		answer, err = proxy.Explain(table, q)
	default:
		client, app, failed := c.target(ctx)
		if failed != nil {
			return failed
		}
		answer, err = client.TestRoute(ctx, app, q)
	}
	if err != nil {
		return err
	}
	if c.json {
		err = c.printJSON(answer)
	} else {
		err = writeRouteAnswer(c.stdout, q, answer)
	}
	if answer.Line == nil {
		return errors.Join(err, exitError{code: exitFailed})
	}
	return err
}

// routeTable has a row for each line.
func routeTable(lines []spillway.RouteLine) *table {
	t := newTable("HOST", "REQUESTS", "GO TO", "WITH")
	for _, line := range lines {
		does := slices.Clone(line.Does)
		for _, r := range line.Rules {
			does = append(does, fmt.Sprintf("%s %s=%s to track %s", r.Kind, r.Name, r.Value, cmp.Or(r.Track, "stable")))
		}
		t.row(line.Host, line.Match, legsText(line.To), strings.Join(does, "; "))
	}
	return t
}

// legsText is "web: release 7 95%, release 8 5%", with the share of each where there are several.
func legsText(legs []spillway.RouteLeg) string {
	var list []string
	for _, leg := range legs {
		text := leg.Name + ": " + backendsText(leg)
		if len(leg.Backends) == 1 && leg.Name == strings.Join(leg.Backends[0].URLs, ",") {
			text = backendsText(leg)
		}
		if len(legs) > 1 {
			text = leg.Share.String() + " " + text
		}
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}

func backendsText(leg spillway.RouteLeg) string {
	if len(leg.Backends) == 0 {
		return "nobody: " + cmp.Or(leg.Closed, "closed")
	}
	var list []string
	for _, b := range leg.Backends {
		text := backendWords(b)
		if len(b.URLs) > 0 {
			text = strings.Join(b.URLs, " ")
		}
		if len(leg.Backends) > 1 {
			text += " " + b.Weight.String()
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// writeRouteAnswer prints what would become of a request.
func writeRouteAnswer(w io.Writer, q spillway.RouteQuery, a spillway.RouteAnswer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n\n", clean(q.Method), clean(q.URL))
	if a.Line != nil {
		fmt.Fprintf(&b, "rule    %s %s\n", clean(a.Line.Host), clean(a.Line.Match))
		if a.Line.Rest {
			b.WriteString("        no rule: the host is the service's\n")
		}
		for _, does := range a.Line.Does {
			fmt.Fprintf(&b, "        %s\n", clean(does))
		}
	}
	if a.Got != nil {
		got := spillway.RouteLeg{Name: a.Leg.Name, Backends: []spillway.Backend{*a.Got}}
		fmt.Fprintf(&b, "gets    %s\n", clean(legsText([]spillway.RouteLeg{got})))
		why := a.Why
		if !a.Key && strings.HasPrefix(why, "bucket ") {
			why = "as chance has it: the request does not say who its user is; give --as KEY, or the header or cookie of cohort"
		}
		fmt.Fprintf(&b, "why     %s\n", clean(why))
		if len(a.Leg.Backends) > 1 {
			fmt.Fprintf(&b, "of      %s\n", clean(backendsText(*a.Leg)))
		}
		if len(a.Line.To) > 1 {
			fmt.Fprintf(&b, "targets %s\n", clean(legsText(a.Line.To)))
		}
		fmt.Fprintf(&b, "asked   %s\n", clean(a.Asked))
	}
	if a.Status != 0 {
		fmt.Fprintf(&b, "answer  %s\n", clean(strings.TrimSpace(fmt.Sprintf("%d %s", a.Status, a.Text))))
	}
	for _, note := range a.Notes {
		fmt.Fprintf(&b, "note    %s\n", clean(note))
	}
	if len(a.Passed) > 0 {
		b.WriteString("\n")
		passed := newTable("OTHER RULES", "REQUESTS", "WHY NOT")
		for _, p := range a.Passed {
			passed.row(p.Host, p.Match, p.Why)
		}
		if err := passed.print(&b); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
