package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) showCommand() *cobra.Command {
	return c.verb(groupWatch, &cobra.Command{
		Use:   "show RELEASE",
		Short: "One release: where it came from, what it runs, what it changed",
		Long:  "Show prints the source, the configuration and the artefacts of a release, and what it changed.",
		Example: `  spillway show 8
  spillway show 8 --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("which release? Like spillway show 8; there are: spillway releases")
			}
			if n, err := strconv.Atoi(args[0]); err != nil || n < 1 {
				return usage("%q is not the number of a release; see spillway releases", args[0])
			}
			return nil
		},
		RunE:              func(cmd *cobra.Command, args []string) error { return c.show(cmd.Context(), args[0]) },
		ValidArgsFunction: c.completeReleases,
	})
}

func (c *cli) show(ctx context.Context, arg string) error {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return usage("%q is not the number of a release", arg)
	}
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	all, err := client.Releases(ctx, app)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(r spillway.Release) bool { return r.Number == n })
	if i < 0 {
		return fmt.Errorf("%s has no release %d; there are: spillway releases", app, n)
	}
	var before *spillway.Release
	if i+1 < len(all) { // newest first
		before = &all[i+1]
	}
	if c.json {
		return c.printJSON(all[i])
	}
	return writeRelease(c.stdout, all[i], before, time.Now())
}

// writeRelease prints a release, and what it changed since the one before it.
func writeRelease(w io.Writer, r spillway.Release, before *spillway.Release, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s of %s, made %s", release(r.Number), trackWords(r.Track), r.App, age(now, r.Created))
	if r.By != "" {
		b.WriteString(" by " + r.By)
	}
	fmt.Fprintf(&b, "\n  commit   %s\n  source   %s\n", commit(r.Source), r.Source.Digest)
	if r.Note != "" {
		fmt.Fprintf(&b, "  note     %s\n", clean(r.Note))
	}
	fmt.Fprintf(&b, "  budget   %s; watched %s after 100%%\n", count(r.Config.Budget, "failed request"), r.Config.Watch)
	for _, s := range r.Config.Services {
		writeService(&b, r, s)
	}
	if before != nil {
		fmt.Fprintf(&b, "\nchanged since %s\n", release(before.Number))
		for _, change := range changes(*before, r) {
			fmt.Fprintf(&b, "  %s\n", change)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// tlsText says where a certificate comes from.
func tlsText(t spillway.TLS) string {
	text := t.Cert
	if t.Auto {
		text = "auto" + after(" from ", t.CA)
	}
	if t.Redirect {
		text += ", HTTP is sent to HTTPS"
	}
	return text
}

// sizeText is how many replicas a service has: "3", "2 to 12 by cpu 60%, memory 70%".
func sizeText(s spillway.Service) string {
	var by []string
	if s.Targets.CPU > 0 {
		by = append(by, "cpu "+s.Targets.CPU.String())
	}
	if s.Targets.Memory > 0 {
		by = append(by, "memory "+s.Targets.Memory.String())
	}
	if len(by) == 0 {
		return strconv.Itoa(s.Scale)
	}
	if s.Targets.Tolerance > 0 {
		by[len(by)-1] += ", give or take " + s.Targets.Tolerance.String()
	}
	return fmt.Sprintf("%d to %d by %s", s.Scale, s.Max, strings.Join(by, ", "))
}

func writeService(b *strings.Builder, r spillway.Release, s spillway.Service) {
	size := count(s.Scale, "replica")
	if s.Autoscaled() {
		size = sizeText(s)
	}
	fmt.Fprintf(b, "\n%s (%s, %s)\n", s.Name, size, s.Strategy)
	lines := [][2]string{
		{"image", s.Image}, {"run", command(s.Run)}, {"port", portText(s.Port)}, {"host", strings.Join(s.Host, ", ")}, {"needs", strings.Join(s.Needs, ", ")},
		{"listen", strings.Join(s.Listen, ", ")}, {"health", s.Health.Path}, {"release", command(s.Release)}, {"artefact", r.Artefacts[s.Name].Digest},
		{"pinned", r.Artefacts[s.Name].Image},
	}
	if s.Protocol != "" && s.Protocol != spillway.HTTP {
		lines = append(lines, [2]string{"protocol", string(s.Protocol) + after(", replicas are told who connects: PROXY ", string(s.Announce))})
	}
	if s.TLS != nil {
		lines = append(lines, [2]string{"tls", tlsText(*s.TLS)})
	}
	if s.Standby != nil {
		lines = append(lines, [2]string{"standby", s.Standby.Keep.String() + after(" at ", strings.Join(s.Standby.Host, ", "))})
	}
	for _, t := range s.Tracks {
		lines = append(lines, [2]string{"track", trackText(t)})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Env)) {
		lines = append(lines, [2]string{"env", key + "=" + s.Env[key]})
	}
	for _, l := range lines {
		if l[1] != "" {
			fmt.Fprintf(b, "  %-8s %s\n", l[0], clean(l[1]))
		}
	}
}

// portText is the port in a container; "" where none is written.
func portText(port int) string {
	if port == 0 {
		return ""
	}
	return strconv.Itoa(port)
}

// trackText is a track as the app file has it: "canary 10%, cookie beta=1, host canary.example.com".
func trackText(t spillway.Track) string {
	share := t.Share.String()
	if t.Auto {
		share = "auto"
	}
	parts := []string{t.Name + " " + share}
	for _, m := range t.Match {
		parts = append(parts, fmt.Sprintf("%s %s=%s", m.Kind, m.Name, m.Value))
	}
	for _, host := range t.Host {
		parts = append(parts, "host "+host)
	}
	return strings.Join(append(parts, t.URLs...), ", ")
}

func command(c spillway.Command) string {
	if len(c.Exec) > 0 {
		return strings.Join(c.Exec, " ")
	}
	return c.Shell
}

// changes says in words what differs between two releases. Values of settings are not told.
func changes(a, b spillway.Release) []string {
	var list []string
	for _, s := range b.Config.Services {
		old, had := a.Config.Service(s.Name)
		if !had {
			list = append(list, s.Name+": new")
			continue
		}
		for _, what := range serviceChanges(old, s) {
			list = append(list, s.Name+": "+what)
		}
		was, is := a.Artefacts[s.Name], b.Artefacts[s.Name]
		if was.Digest != is.Digest && s.Image == "" {
			list = append(list, s.Name+": source")
		} else if was.Image != is.Image && was.Image != "" && old.Image == s.Image {
			list = append(list, s.Name+": what its image is") // a tag means another one now, or the base does
		}
	}
	for _, s := range a.Config.Services {
		if _, has := b.Config.Service(s.Name); !has {
			list = append(list, s.Name+": gone")
		}
	}
	if len(list) == 0 {
		list = append(list, "nothing that its services show")
	}
	return list
}

func serviceChanges(a, b spillway.Service) []string {
	var list []string
	if command(a.Run) != command(b.Run) {
		list = append(list, "run")
	}
	if a.Image != b.Image {
		list = append(list, fmt.Sprintf("image %s -> %s", cmp.Or(a.Image, "none"), cmp.Or(b.Image, "none")))
	}
	if a.Port != b.Port {
		list = append(list, "port")
	}
	if sizeText(a) != sizeText(b) {
		list = append(list, fmt.Sprintf("scale %s -> %s", sizeText(a), sizeText(b)))
	}
	if a.Strategy != b.Strategy {
		list = append(list, fmt.Sprintf("strategy %s -> %s", a.Strategy, b.Strategy))
	}
	if !slices.Equal(a.Host, b.Host) {
		list = append(list, "host")
	}
	if !slices.Equal(a.Listen, b.Listen) {
		list = append(list, "listen")
	}
	if cmp.Or(a.Protocol, spillway.HTTP) != cmp.Or(b.Protocol, spillway.HTTP) {
		list = append(list, "protocol")
	}
	if a.Announce != b.Announce {
		list = append(list, "proxy_protocol")
	}
	if !slices.Equal(a.Needs, b.Needs) {
		list = append(list, "needs")
	}
	if a.Health != b.Health {
		list = append(list, "health")
	}
	if a.Limits != b.Limits {
		list = append(list, "limits")
	}
	for _, setting := range []struct {
		name string
		a, b any
	}{{"release command", a.Release, b.Release}, {"tls", a.TLS, b.TLS}, {"standby", a.Standby, b.Standby}, {"synthetic", a.Synthetic, b.Synthetic}, {"tracks", a.Tracks, b.Tracks}} {
		if !reflect.DeepEqual(setting.a, setting.b) {
			list = append(list, setting.name)
		}
	}
	keys := maps.Clone(a.Env)
	if keys == nil {
		keys = map[string]string{}
	}
	maps.Copy(keys, b.Env)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		old, had := a.Env[key]
		if now, has := b.Env[key]; had != has || old != now {
			list = append(list, "env "+key)
		}
	}
	return list
}
