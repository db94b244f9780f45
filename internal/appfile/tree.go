package appfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file. They are far above what people write and keep a file that consists of aliases of
// aliases from costing more than it looks.
const (
	maxBytes  = 1 << 20
	maxValues = 10_000 // after aliases are followed
)

// kind is the type of a value, in the words of an error message.
type kind string

const (
	aNull    kind = "empty"
	aText    kind = "text"
	aBoolean kind = "a boolean"
	aWhole   kind = "a whole number"
	aNumber  kind = "a number with a fraction"
	aList    kind = "a list"
	aMapping kind = "a mapping"
	aStrange kind = "a value with a YAML tag of its own"
)

// place is a position in the file, both 1-based.
type place struct{ line, column int }

// node is one value of the file, with aliases followed and merges (<<) done.
type node struct {
	place           // of the value; of the value behind an alias, where that is written
	key     place   // of the key that it belongs to; zero in lists and for the whole file
	kind    kind    // what it is
	text    string  // of a scalar: as it is written, without quotes
	items   []*node // of a list
	entries []entry // of a mapping, in the order of the file, each key once
	removed place   // of a mapping: where an environment takes a key out of it; zero when none does
	bad     bool    // a mistake was reported for it: it must not be used
}

// entry is one key of a mapping with its value.
type entry struct {
	name string
	*node
}

// child finds the value of a key; nil when there is none, or none that may be used.
func (n *node) child(name string) *node {
	if n == nil || n.bad {
		return nil
	}
	for _, e := range n.entries {
		if e.name == name && !e.bad {
			return e.node
		}
	}
	return nil
}

// extension reports whether a key is the user's own and ignored, but for mappings whose keys are data.
func extension(key string) bool { return strings.HasPrefix(key, "x-") }

// read makes the tree of a file that should have a shape. The tree is nil when the text is not one YAML document.
func read(r *report, text []byte, file shape) *node {
	if len(text) > maxBytes {
		r.add(nil, "", fmt.Sprintf("the file has %d bytes, more than %d", len(text), maxBytes), "is it an app file?")
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	err := decoder.Decode(&doc)
	if err == nil {
		if err = decoder.Decode(&second); err == nil {
			r.add(&node{place: place{second.Line, second.Column}}, "", "a second document begins here",
				"an app file is one document: remove the --- and what follows, or make it a file of its own")
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if errors.Is(err, io.EOF) || err == nil && blank(&doc) {
		r.add(&node{place: place{1, 1}}, "", "the file is empty", "the smallest app file is:\n\n"+minimal)
		return nil
	}
	if err != nil {
		r.syntax(text, err)
		return nil
	}
	e := expansion{report: r, open: map[*yaml.Node]bool{}}
	return e.value(doc.Content[0], "", file)
}

// blank reports whether a document holds nothing at all: only comments, or only a null.
func blank(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null"
}

var (
	yamlLine   = regexp.MustCompile(`^(?:yaml: )?line (\d+): (?s:(.*))$`)
	yamlAnchor = regexp.MustCompile(`unknown anchor '(.*)' referenced`)
)

// syntax reports that the text is not YAML. The parser says little about tabs and its line is where it
// gave up, so a tab in the indentation is looked for first.
func (r *report) syntax(text []byte, err error) {
	for i, line := range strings.Split(string(text), "\n") {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 && len(indent) < len(strings.TrimRight(line, "\r")) {
			r.add(&node{place: place{i + 1, tab + 1}}, "", "is indented with a tab, which YAML does not allow", "indent with spaces")
			return
		}
	}
	if m := yamlAnchor.FindStringSubmatch(err.Error()); m != nil {
		before, _, _ := bytes.Cut(text, []byte("*"+m[1]))
		at := place{1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')}
		r.add(&node{place: at}, "", "there is no anchor &"+m[1]+" for the alias *"+m[1], "put text that begins with * in quotes")
		return
	}
	at, problem := &node{}, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1]) // the pattern allows digits only
		at.place, problem = place{max(line, 1), 1}, m[2]
	}
	hint := "look for a missing colon, quote or space there and in the line above"
	if strings.Contains(problem, "alphabetic or numeric character") { // of the name of an anchor
		hint = "put text that begins with * or & in quotes"
	}
	r.add(at, "", "is not YAML: "+problem, hint)
}

// expansion follows the aliases and merges of one document.
type expansion struct {
	report *report
	open   map[*yaml.Node]bool // anchors that are being expanded: meeting one again is a circle
	values int
}

// value makes the tree below y, which should have a shape; nil = it is not known.
func (e *expansion) value(y *yaml.Node, path string, s shape) *node {
	n := &node{place: place{y.Line, y.Column}, kind: aNull}
	if e.values++; e.values > maxValues {
		if e.values == maxValues+1 {
			e.report.add(n, path, fmt.Sprintf("the file has more than %d values, counting each use of an alias", maxValues), "")
		}
		n.bad = true
		return n
	}
	switch y.Kind {
	case yaml.AliasNode:
		if e.open[y.Alias] {
			e.report.add(n, path, "the alias *"+y.Value+" is used inside of what it stands for", "")
			return n
		}
		e.open[y.Alias] = true
		defer delete(e.open, y.Alias)
		return e.value(y.Alias, path, s)
	case yaml.SequenceNode:
		n.kind = aList
		for i, item := range y.Content {
			n.items = append(n.items, e.value(item, fmt.Sprintf("%s[%d]", path, i), below(s, aList, "")))
		}
	case yaml.MappingNode:
		n.kind = aMapping
		e.mapping(n, y, path, s)
	default:
		n.kind, n.text = scalarKind(y), y.Value
	}
	return n
}

// scalarKind gives the type of a scalar. Dates are text: nothing in an app file is a date.
func scalarKind(y *yaml.Node) kind {
	switch y.ShortTag() {
	case "!!str", "!!timestamp", "!!merge":
		return aText
	case "!!bool":
		return aBoolean
	case "!!int":
		return aWhole
	case "!!float":
		return aNumber
	case "!!null":
		return aNull
	}
	return aStrange
}

// mapping fills n with the keys of y: its own, then those that << merges in.
func (e *expansion) mapping(n *node, y *yaml.Node, path string, s shape) {
	dict, _ := chosen(s, aMapping).(dictShape)
	own := map[string]place{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		at := place{key.Line, key.Column}
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			e.report.add(&node{place: at}, path, "has a key that is not text", "")
			continue
		}
		if first, again := own[key.Value]; again {
			e.report.add(&node{place: at}, join(path, key.Value), fmt.Sprintf("is written twice, first in line %d", first.line), "remove one of them")
			continue
		}
		own[key.Value] = at
		if extension(key.Value) && !dict.data {
			continue
		}
		child := e.value(value, join(path, key.Value), below(s, aMapping, key.Value))
		child.key = at
		n.entries = append(n.entries, entry{key.Value, child})
	}
	for _, merge := range merges {
		e.merge(n, merge, path, s)
	}
}

// merge adds to n the keys of a mapping, or of each mapping of a list, that n does not have yet.
func (e *expansion) merge(n *node, y *yaml.Node, path string, s shape) {
	from := e.value(y, path, anyShape{chosen(s, aMapping), listShape{s}})
	sources := []*node{from}
	if from.kind == aList {
		sources = from.items
	}
	for _, source := range sources {
		if source.bad {
			continue
		}
		if source.kind != aMapping {
			e.report.add(source, path, "<< merges "+string(source.kind), "give it the alias of a mapping: <<: *name")
			continue
		}
		for _, added := range source.entries {
			if !slices.ContainsFunc(n.entries, func(have entry) bool { return have.name == added.name }) {
				n.entries = append(n.entries, added)
			}
		}
	}
}

// join extends the path of a mapping by a key: "services" and "www" make "services.www".
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// chosen is the shape of a value of a kind, of those that it may have; nil = there is none.
func chosen(s shape, k kind) shape {
	forms, several := s.(anyShape)
	if !several {
		return s
	}
	for _, form := range forms {
		if form != nil && form.takes(k) {
			return chosen(form, k)
		}
	}
	return nil
}

// below is the shape of what stands in a value of a shape: under a key of a mapping, or in a list. nil = not known.
func below(s shape, k kind, key string) shape {
	switch s := chosen(s, k).(type) {
	case objectShape:
		for _, known := range s.keys {
			if known.name == key {
				return known.shape
			}
		}
	case dictShape:
		return s.of
	case overlayShape:
		return below(s.of, k, key)
	case fewShape:
		return s.of
	case listShape:
		return s.of
	}
	return nil
}
