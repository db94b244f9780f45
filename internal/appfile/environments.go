package appfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// production is the environment that every file describes; what environments.production says is added to it.
const production = "production"

// maxEnvironments bounds the work: the whole file is checked once for each.
const maxEnvironments = 20

// lostCause is the number of mistakes from which on a file is no app file with mistakes in it: what there
// is to say was said, and the rest would take seconds.
const lostCause = 200

// ParseEnvironment reads the text of an app file as one environment has it: what the file says under
// environments.ENV is merged into the rest. Mappings are merged key by key, lists and single values
// replace, and null removes a key. "" is production, which need not be written in the file.
//
// All environments are checked, whichever is asked for: the error is nil or a spillway.FieldErrors with
// every mistake in the text, and with those of an environment that the file does not name.
func ParseEnvironment(file string, text []byte, env string) (spillway.App, error) {
	r := &report{file: file}
	keys := fileShape()
	root := read(r, text, keys)
	if root == nil {
		return spillway.App{}, r.err()
	}
	if env == "" {
		env = production
	}
	inspect(r, keys, effective(root, production))
	r.under(production, root.child("environments").child(production))
	for _, e := range environments(root) {
		if e.name != production && len(r.errors) <= lostCause {
			other := &report{file: r.file}
			inspect(other, keys, withoutEnvironments(effective(root, e.name)))
			r.takeOver(other, e.name)
		}
	}
	checkNamed(r, root, env)
	if err := r.err(); err != nil {
		return spillway.App{}, err
	}
	return buildApp(effective(root, env)), nil
}

// inspect reports every mistake in the tree of one environment.
func inspect(r *report, file shape, root *node) {
	examine(r, file, root, "", "begin with app: NAME and services:")
	crossCheck(r, root)
}

// environments are the environments of a file that can be merged, in its order.
func environments(root *node) []entry {
	n := root.child("environments")
	if n == nil || len(n.entries) > maxEnvironments {
		return nil
	}
	return n.entries
}

// effective is a copy of the file as an environment has it.
func effective(root *node, env string) *node {
	top := root.child("environments").child(env)
	if top == nil || top.kind != aMapping {
		return root.copied()
	}
	return overlaid(root, top)
}

func withoutEnvironments(root *node) *node {
	root.entries = slices.DeleteFunc(root.entries, func(e entry) bool { return e.name == "environments" })
	return root
}

// checkNamed reports an environment that the file does not have.
func checkNamed(r *report, root *node, env string) {
	n := root.child("environments")
	names := []string{production}
	at := &node{}
	if n != nil {
		at.place = n.key
		for _, e := range n.entries {
			names = append(names, e.name)
		}
	}
	if slices.Contains(names, env) {
		return
	}
	slices.Sort(names)
	hint := "the environments are " + strings.Join(slices.Compact(names), ", ")
	if len(names) == 1 {
		hint = "the only environment is production; write environments: {staging: {services: {…}}} to have another"
	}
	r.add(at, "environments", fmt.Sprintf("there is no environment %s in the file", quote(env)), hint)
}

// copied is a deep copy: checking one environment marks its values, and they are other values in another.
func (n *node) copied() *node {
	c := *n
	c.items, c.entries = nil, nil
	for _, item := range n.items {
		c.items = append(c.items, item.copied())
	}
	for _, e := range n.entries {
		c.entries = append(c.entries, entry{e.name, e.copied()})
	}
	return &c
}

// overlaid is a copy of base with what top says. A key that top removes and base does not have stays
// empty, so that a misspelt one is reported.
func overlaid(base, top *node) *node {
	if base.bad || top.bad || base.kind != aMapping || top.kind != aMapping {
		return top.copied()
	}
	merged := *base
	merged.entries = nil
	over := map[string]*node{}
	for _, e := range top.entries {
		over[e.name] = e.node
	}
	for _, e := range base.entries {
		switch value, ok := over[e.name]; {
		case !ok:
			merged.entries = append(merged.entries, entry{e.name, e.copied()})
		case value.kind == aNull && !value.bad:
			merged.removed = value.key
		default:
			merged.entries = append(merged.entries, entry{e.name, overlaid(e.node, value)})
		}
		delete(over, e.name)
	}
	for _, e := range top.entries {
		if _, ok := over[e.name]; ok {
			merged.entries = append(merged.entries, entry{e.name, e.copied()})
		}
	}
	return &merged
}

// under names the environment in the mistakes that are written in its own lines.
func (r *report) under(env string, top *node) {
	own := map[place]bool{}
	top.places(own)
	for i, e := range r.errors {
		if prefix := "environments." + env; own[place{e.Line, e.Column}] && !strings.HasPrefix(e.Path, prefix) {
			r.errors[i].Path = join(prefix, e.Path)
		}
	}
}

// places collects where the values and keys below n are written.
func (n *node) places(own map[place]bool) {
	if n == nil {
		return
	}
	own[n.place] = true
	for _, item := range n.items {
		item.places(own)
	}
	for _, e := range n.entries {
		own[e.key] = true
		e.places(own)
	}
}

// takeOver adds the mistakes that an environment has and none before it.
func (r *report) takeOver(other *report, env string) {
	type mistake struct {
		place
		problem string
	}
	told := map[mistake]bool{}
	for _, e := range r.errors {
		told[mistake{place{e.Line, e.Column}, e.Problem}] = true
	}
	for _, e := range other.errors {
		if !told[mistake{place{e.Line, e.Column}, e.Problem}] {
			e.Path = join("environments."+env, e.Path)
			r.errors = append(r.errors, e)
		}
	}
}

// environmentsKey is the key of the environments of a file with the other keys that it has.
func environmentsKey(file objectShape) key {
	file.keys = slices.DeleteFunc(slices.Clone(file.keys), func(k key) bool { return k.name == "app" })
	return key{name: "environments", example: "{staging: {services: {web: {scale: 1}}}}",
		shape: dictShape{name: "a mapping of environments", keyName: "an environment's name", pattern: labelPattern(30),
			keyHint: "use 1 to 30 lower-case letters, digits and -", of: overlayShape{file}, example: "{services: {web: {scale: 1}}}", min: 1, max: maxEnvironments},
		doc: "What is different in an environment, by its name: any part of this file but app. Mappings are merged, lists and single values replace, and null removes a key. What is said of production counts when no environment is named."}
}

// overlayShape is what an environment may say: any part of the file. Only what it may not say at all is
// checked here; the rest is checked where it is merged into the file.
type overlayShape struct{ of objectShape }

func (overlayShape) noun() string      { return "a mapping of what is different in it" }
func (overlayShape) takes(k kind) bool { return k == aMapping }

func (s overlayShape) check(r *report, n *node, path, _ string) {
	for _, e := range n.entries {
		if e.name == "app" || e.name == "environments" {
			r.add(&node{place: e.key}, join(path, e.name), "an environment cannot change "+e.name, "remove it")
		}
	}
}

func (s overlayShape) schema() map[string]any { return partial(s.of.schema()) }

// partial is the schema of any part of what a schema describes: no key has to be there or has a default,
// and null, which removes a key, is a value of each.
func partial(schema map[string]any) map[string]any {
	part := maps.Clone(schema)
	delete(part, "required")
	delete(part, "default")
	delete(part, "minProperties")
	for _, word := range []string{"properties", "patternProperties"} {
		if of, ok := part[word].(map[string]any); ok {
			keys := map[string]any{}
			for name, s := range of {
				keys[name] = orNull(s.(map[string]any))
			}
			part[word] = keys
		}
	}
	if forms, ok := part["anyOf"].([]any); ok {
		var parts []any
		for _, form := range forms {
			if p := partial(form.(map[string]any)); len(p) > 0 { // else it said only which key has to be there
				parts = append(parts, p)
			}
		}
		if part["anyOf"] = parts; parts == nil {
			delete(part, "anyOf")
		}
	}
	return part
}

func orNull(schema map[string]any) map[string]any {
	if len(schema) == 0 { // takes anything
		return schema
	}
	part, null := partial(schema), map[string]any{"type": "null"}
	if forms, ok := part["anyOf"].([]any); ok {
		part["anyOf"] = append(forms, null)
		return part
	}
	whole := map[string]any{"anyOf": []any{part, null}}
	if doc, ok := part["description"]; ok {
		whole["description"] = doc
		delete(part, "description")
	}
	return whole
}
