package appfile

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// shape is what a value may be. The same shape checks a file and prints its part of the JSON Schema;
// whatever it lets through, the builder of the App (build.go) can read without looking again.
type shape interface {
	// noun names the shape in a message: "is a list, not <noun>".
	noun() string
	// takes reports whether a value of this kind can have the shape at all.
	takes(kind) bool
	// check reports what is wrong with a value whose kind it takes. The hint is what to write, for
	// mistakes that have no better one.
	check(r *report, n *node, path, hint string)
	// schema is the JSON Schema of the shape; nil for what this version does not support.
	schema() map[string]any
}

// examine reports a value of a wrong kind and leaves the others to the shape.
func examine(r *report, s shape, n *node, path, hint string) {
	switch {
	case n.bad:
	case s.takes(n.kind):
		s.check(r, n, path, hint)
	case n.kind == aNull:
		r.add(n, path, "has no value", hint+", or leave it out")
	default:
		r.add(n, path, fmt.Sprintf("is %s, not %s", n.kind, s.noun()), hint)
	}
}

// textShape is text of a pattern.
type textShape struct {
	name    string         // "a DNS label"
	pattern *regexp.Regexp // nil: any text
	// problem says what is wrong with a text, in better words than the pattern can or beyond it, and
	// what to write instead; "", "" leaves it to the pattern. It may be nil.
	problem func(text string) (problem, hint string)
}

func (s textShape) noun() string      { return s.name }
func (s textShape) takes(k kind) bool { return k == aText }

func (s textShape) check(r *report, n *node, path, hint string) {
	if strings.ContainsRune(n.text, 0) {
		r.add(n, path, "contains a NUL character", hint)
		return
	}
	if s.problem != nil {
		if problem, better := s.problem(n.text); problem != "" {
			if better == "" {
				better = hint
			}
			r.add(n, path, problem, better)
			return
		}
	}
	if s.pattern != nil && !s.pattern.MatchString(n.text) {
		r.add(n, path, fmt.Sprintf("%s is not %s", quote(n.text), s.name), hint)
	}
}

func (s textShape) schema() map[string]any {
	if s.pattern == nil {
		return map[string]any{"type": "string"}
	}
	return map[string]any{"type": "string", "pattern": s.pattern.String()}
}

// quote shows the beginning of a text from the file.
func quote(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return strconv.Quote(text)
}

// choiceShape is one of a few words.
type choiceShape []string

func (s choiceShape) takes(k kind) bool { return k == aText }

func (s choiceShape) noun() string {
	if len(s) == 1 {
		return s[0]
	}
	return "one of " + strings.Join(s, ", ")
}

func (s choiceShape) check(r *report, n *node, path, hint string) {
	if slices.Contains(s, n.text) {
		return
	}
	if near := closest(n.text, s); near != "" {
		hint = "did you mean " + near + "?"
	}
	r.add(n, path, fmt.Sprintf("%s is not %s", quote(n.text), s.noun()), hint)
}

func (s choiceShape) schema() map[string]any { return map[string]any{"enum": []string(s)} }

// wholeShape is a whole number in plain decimals.
type wholeShape struct {
	name     string // "a number of replicas"
	min, max int
}

func (s wholeShape) noun() string      { return s.name }
func (s wholeShape) takes(k kind) bool { return k == aWhole }

func (s wholeShape) check(r *report, n *node, path, hint string) {
	v, err := strconv.Atoi(n.text)
	switch {
	case err != nil:
		r.add(n, path, quote(n.text)+" is not a plain decimal number", hint)
	case v < s.min || v > s.max:
		r.add(n, path, fmt.Sprintf("%d is out of range: %s is %d to %d", v, s.name, s.min, s.max), hint)
	case n.text != strconv.Itoa(v):
		r.add(n, path, quote(n.text)+" is not a plain decimal number", fmt.Sprintf("write %d", v))
	}
}

func (s wholeShape) schema() map[string]any {
	return map[string]any{"type": "integer", "minimum": s.min, "maximum": s.max}
}

// literalShape is a number, true or false that is kept as it is written.
type literalShape struct{}

func (literalShape) noun() string { return "a number, true or false" }
func (literalShape) takes(k kind) bool {
	return k == aWhole || k == aNumber || k == aBoolean
}
func (literalShape) check(*report, *node, string, string) {}
func (literalShape) schema() map[string]any {
	return map[string]any{"type": []string{"number", "boolean"}}
}

// boolShape is true or false.
type boolShape struct{}

func (boolShape) noun() string                         { return "true or false" }
func (boolShape) takes(k kind) bool                    { return k == aBoolean }
func (boolShape) check(*report, *node, string, string) {}
func (boolShape) schema() map[string]any               { return map[string]any{"type": "boolean"} }

// durationShape is a length of time.
type durationShape struct{ min, max time.Duration }

var durationText = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`)

func (s durationShape) noun() string      { return "a duration" }
func (s durationShape) takes(k kind) bool { return k == aText || k == aWhole }

func (s durationShape) check(r *report, n *node, path, hint string) {
	d, err := time.ParseDuration(n.text)
	if n.text != "0" && (err != nil || !durationText.MatchString(n.text)) {
		if n.kind == aWhole {
			hint = "add a unit: " + n.text + "s or " + n.text + "m"
		}
		r.add(n, path, quote(n.text)+" is not a duration", hint)
		return
	}
	if d < s.min || d > s.max {
		r.add(n, path, fmt.Sprintf("%s is out of range: %s to %s", n.text, spillway.Duration(s.min), spillway.Duration(s.max)), hint)
	} else if d%time.Millisecond != 0 {
		r.add(n, path, quote(n.text)+" is finer than 1ms", hint)
	}
}

func (s durationShape) schema() map[string]any {
	text := map[string]any{"type": "string", "pattern": durationText.String()}
	if s.min > 0 {
		return text
	}
	return map[string]any{"anyOf": []any{text, map[string]any{"enum": []any{0, "0"}}}}
}

// listShape is a list with at least one item.
type listShape struct{ of shape }

func (s listShape) noun() string      { return "a list" }
func (s listShape) takes(k kind) bool { return k == aList }

func (s listShape) check(r *report, n *node, path, hint string) {
	if len(n.items) == 0 {
		r.add(n, path, "is an empty list", hint+", or leave it out")
	}
	for i, item := range n.items {
		examine(r, s.of, item, fmt.Sprintf("%s[%d]", path, i), hint)
	}
}

func (s listShape) schema() map[string]any {
	return map[string]any{"type": "array", "minItems": 1, "items": s.of.schema()}
}

// fewShape is a list of which each item costs something for as long as the app runs.
type fewShape struct {
	listShape
	most int
}

func (s fewShape) check(r *report, n *node, path, hint string) {
	if len(n.items) > s.most {
		r.add(n, path, fmt.Sprintf("has %d items, more than %d", len(n.items), s.most), "keep those that matter")
		return
	}
	s.listShape.check(r, n, path, hint)
}

func (s fewShape) schema() map[string]any {
	schema := s.listShape.schema()
	schema["maxItems"] = s.most
	return schema
}

// anyShape is one of several shapes, told apart by the kind of the value: the first that takes it.
type anyShape []shape

func (s anyShape) noun() string {
	var nouns []string
	for _, form := range s {
		if noun := form.noun(); noun != "" && !slices.Contains(nouns, noun) {
			nouns = append(nouns, noun)
		}
	}
	return strings.Join(nouns, " or ")
}

func (s anyShape) takes(k kind) bool {
	return slices.ContainsFunc(s, func(form shape) bool { return form.takes(k) })
}

func (s anyShape) check(r *report, n *node, path, hint string) {
	i := slices.IndexFunc(s, func(form shape) bool { return form.takes(n.kind) })
	s[i].check(r, n, path, hint)
}

func (s anyShape) schema() map[string]any {
	var forms []any
	for _, form := range s {
		if schema := form.schema(); schema != nil {
			forms = append(forms, schema)
		}
	}
	if len(forms) == 1 {
		return forms[0].(map[string]any)
	}
	return map[string]any{"anyOf": forms}
}
