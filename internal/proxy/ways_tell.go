package proxy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// lines tell what the ways of an app do, by host, wildcards last.
func (t *ways) lines(app spillway.Ref) []spillway.RouteLine {
	lines := []spillway.RouteLine{}
	for _, sites := range []map[string]*site{t.hosts, t.below} {
		for _, name := range slices.Sorted(maps.Keys(sites)) {
			for _, w := range sites[name].inOrder() {
				if w.app.ref == app {
					lines = append(lines, w.line())
				}
			}
		}
	}
	return lines
}

// inOrder are the ways of a site as they are tried.
func (s *site) inOrder() []*way {
	if s.rest == nil {
		return s.all
	}
	return append(slices.Clone(s.all), s.rest)
}

// line tells what a way does.
func (w *way) line() spillway.RouteLine {
	line := spillway.RouteLine{App: w.app.ref, Host: w.host, Match: w.match(), Does: w.does(), Rest: w.rule.Hosts == nil}
	for _, a := range w.arms {
		leg := legOf(a.edge)
		leg.Share = spillway.Share(a.weight) * spillway.Whole / spillway.Share(w.total)
		line.To = append(line.To, leg)
	}
	if e := w.first(); line.Rest && e != nil {
		line.Rules = slices.Clone(e.spec.Rules)
	}
	return line
}

func legOf(e *edge) spillway.RouteLeg {
	served := e.served()
	return spillway.RouteLeg{Name: cmp.Or(served.Target, served.Service), Share: spillway.Whole, Only: served.Only, Backends: served.Backends, Closed: served.Closed}
}

// match is what a way fits, without its host.
func (w *way) match() string {
	alone := w.rule
	alone.Hosts = nil
	return strings.TrimSpace(alone.String())
}

// does tells what a rule does beside leading somewhere, each in a few words. No hash of a password is among them.
func (w *way) does() []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	r := &w.rule
	if len(r.Allow) > 0 {
		add("only from %s", strings.Join(r.Allow, ", "))
	}
	if r.CORS != nil {
		add("CORS for %s", strings.Join(r.CORS.Origins, ", "))
	}
	if r.Rate != nil {
		by := "address"
		if r.Rate.By.Kind != "" {
			by = r.Rate.By.Kind + " " + r.Rate.By.Name
		}
		add("%d requests in %s by %s, %d at once", r.Rate.Requests, r.Rate.Per, by, r.Rate.Burst)
	}
	if len(r.Users) > 0 {
		add("only users %s", strings.Join(slices.Sorted(maps.Keys(r.Users)), ", "))
	}
	if r.MaxBody > 0 {
		add("body up to %s", r.MaxBody)
	}
	if r.Redirect != nil {
		add("%d to %s", r.Redirect.Status, destination(r.Redirect))
	}
	if r.Rewrite != nil {
		add("as %s", cmp.Or(r.Rewrite.Host, "")+pathWords(r.Rewrite.Path, r.Rewrite.Prefix))
	}
	list = append(list, editWords("request", r.Request)...)
	list = append(list, editWords("response", r.Response)...)
	for _, m := range r.Mirror {
		add("copies %s to %s", m.Share, m.Name())
	}
	if r.Timeout > 0 {
		add("timeout %s", r.Timeout)
	}
	if r.Retries != nil {
		add("retries %d", *r.Retries)
	}
	return list
}

// destination is where a redirect leads, in the words of the app file.
func destination(r *spillway.Redirect) string {
	text := ""
	if r.Host != "" || r.Port != 0 {
		text = "//" + r.Host
		if r.Port != 0 {
			text += fmt.Sprintf(":%d", r.Port)
		}
	}
	if r.Scheme != "" {
		text = r.Scheme + ":" + text
	}
	return text + pathWords(r.Path, r.Prefix)
}

func pathWords(path, prefix string) string {
	if prefix != "" {
		return strings.TrimSuffix(prefix, "/") + "/*"
	}
	return path
}

func editWords(of string, e *spillway.HeaderEdit) []string {
	if e == nil {
		return nil
	}
	var parts []string
	for _, kind := range []struct {
		verb   string
		fields []spillway.HeaderField
	}{{"sets", e.Set}, {"adds", e.Add}} {
		for _, f := range kind.fields {
			parts = append(parts, kind.verb+" "+f.Name)
		}
	}
	for _, name := range e.Remove {
		parts = append(parts, "removes "+name)
	}
	return []string{of + " " + strings.Join(parts, ", ")}
}
