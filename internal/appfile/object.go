package appfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// key is one key of a mapping.
type key struct {
	name     string
	doc      string // for the schema: one or two sentences
	shape    shape  // nil: the design has the key, this version does not
	example  string // a value, for hints: "write <name>: <example>"
	required bool
	value    any // the default, for the schema; nil when there is none
}

// hint says how to write the key.
func (k key) hint() string { return "write " + k.name + ": " + k.example }

// objectShape is a mapping with known keys.
type objectShape struct {
	name string // "a service"
	keys []key
	// either are keys of which one has to be there, the usual one first. It may be nil.
	either []string
	// elsewhere says where a key belongs that is not one of these: it gives "services.<name>.health"
	// for health, and "" for what it does not know. It may be nil.
	elsewhere func(name string) string
}

func (s objectShape) noun() string      { return s.name }
func (s objectShape) takes(k kind) bool { return k == aMapping }

func (s objectShape) check(r *report, n *node, path, _ string) {
	for _, e := range n.entries {
		i := slices.IndexFunc(s.keys, func(k key) bool { return k.name == e.name })
		at := &node{place: e.key}
		switch {
		case i < 0:
			r.add(at, join(path, e.name), "unknown key", s.suggest(e.name))
		case s.keys[i].shape == nil:
			r.add(at, join(path, e.name), e.name+" is not supported by this version of Spillway", s.keys[i].example)
		case (s.keys[i].required || slices.Contains(s.either, e.name)) && e.kind == aNull && !e.bad:
			r.add(e.node, join(path, e.name), "has no value", s.keys[i].hint())
		default:
			examine(r, s.keys[i].shape, e.node, join(path, e.name), s.keys[i].hint())
		}
	}
	for _, k := range s.keys {
		if k.required && !has(n, k.name) {
			s.missing(r, n, join(path, k.name), k.hint())
		}
	}
	if s.either != nil && !slices.ContainsFunc(s.either, func(name string) bool { return has(n, name) }) {
		var hints []string
		for _, k := range s.keys {
			if slices.Contains(s.either, k.name) {
				hints = append(hints, k.name+": "+k.example)
			}
		}
		s.missing(r, n, join(path, s.either[0]), "write "+strings.Join(hints, ", or "))
	}
}

// missing reports a key that is not there, where its mapping begins or where the key was removed.
func (s objectShape) missing(r *report, n *node, path, hint string) {
	at := &node{place: n.place}
	switch {
	case n.removed.line > 0:
		at.place = n.removed
	case n.key.line > 0:
		at.place = n.key
	}
	r.add(at, path, "is missing", hint)
}

// suggest says what an unknown key may have been meant to be.
func (s objectShape) suggest(wrong string) string {
	if s.elsewhere != nil {
		if where := s.elsewhere(wrong); where != "" {
			return "it belongs to " + where
		}
	}
	names := s.names()
	if near := closest(wrong, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "the keys here are " + strings.Join(names, ", ") + "; keys that begin with x- are yours"
}

// names lists the keys that this version supports, in the order of the table.
func (s objectShape) names() []string {
	var names []string
	for _, k := range s.keys {
		if k.shape != nil {
			names = append(names, k.name)
		}
	}
	return names
}

func (s objectShape) schema() map[string]any {
	properties := map[string]any{}
	var required []string
	for _, k := range s.keys {
		if k.shape == nil {
			continue
		}
		property := k.shape.schema()
		property["description"] = k.doc
		if k.value != nil {
			property["default"] = k.value
		}
		properties[k.name] = property
		if k.required {
			required = append(required, k.name)
		}
	}
	schema := map[string]any{
		"type":                 "object",
		"properties":           properties,
		"patternProperties":    map[string]any{"^x-": map[string]any{}},
		"additionalProperties": false,
	}
	if required != nil {
		schema["required"] = required
	}
	var forms []any
	for _, name := range s.either {
		forms = append(forms, map[string]any{"required": []string{name}})
	}
	if forms != nil {
		schema["anyOf"] = forms
	}
	return schema
}

// dictShape is a mapping whose keys are the user's.
type dictShape struct {
	name    string         // "a mapping of services"
	keyName string         // "a service's name"
	pattern *regexp.Regexp // of the keys; begins with ^
	keyHint string         // what a key looks like
	// problem says what is wrong with a key that the pattern lets through, and what to do. It may be nil.
	problem func(key string) (problem, hint string)
	of      shape
	data    bool   // keys that begin with x- are like the others, and not ignored: they are names of headers, say
	example string // of a value, for hints
	min     int    // fewest entries
	max     int    // most entries; 0 = any number. Not in the schema: it would count x- keys too
}

func (s dictShape) noun() string      { return s.name }
func (s dictShape) takes(k kind) bool { return k == aMapping }

func (s dictShape) check(r *report, n *node, path, hint string) {
	if len(n.entries) < s.min {
		r.add(n, path, "is empty", hint)
	}
	if s.max > 0 && len(n.entries) > s.max {
		r.add(n, path, fmt.Sprintf("has %d entries, more than %d", len(n.entries), s.max), "make several apps of it")
	}
	for _, e := range n.entries {
		at, entryPath := &node{place: e.key}, join(path, e.name)
		if !s.pattern.MatchString(e.name) {
			r.add(at, path, fmt.Sprintf("%s is not %s", quote(e.name), s.keyName), s.keyHint)
		} else if s.problem != nil {
			if problem, better := s.problem(e.name); problem != "" {
				r.add(at, entryPath, problem, better)
			}
		}
		examine(r, s.of, e.node, entryPath, "write "+e.name+": "+s.example)
	}
}

func (s dictShape) schema() map[string]any {
	keys := map[string]any{}
	if s.data {
		keys[s.pattern.String()] = s.of.schema()
	} else { // keys that begin with x- are ignored here too, although some would match the pattern
		keys["^x-"], keys["^(?!x-)"+strings.TrimPrefix(s.pattern.String(), "^")] = map[string]any{}, s.of.schema()
	}
	schema := map[string]any{"type": "object", "patternProperties": keys, "additionalProperties": false}
	if s.min > 0 {
		schema["minProperties"] = s.min
	}
	return schema
}
