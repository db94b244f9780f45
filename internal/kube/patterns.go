package kube

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"

	"github.com/spillway-dev/spillway"
)

// expression is a pattern of the file, taken apart. It fits any part of a text unless it says otherwise.
type expression struct {
	middle       *syntax.Regexp
	begins, ends bool // it has a ^ before the middle, a $ behind it
}

// parsed takes a pattern apart. Patterns are those of Go, which the reader of the file has checked.
func parsed(text string) expression {
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return expression{middle: &syntax.Regexp{Op: syntax.OpNoMatch}}
	}
	parts := []*syntax.Regexp{tree}
	if tree.Op == syntax.OpConcat {
		parts = tree.Sub
	}
	e := expression{}
	if parts[0].Op == syntax.OpBeginText {
		e.begins, parts = true, parts[1:]
	}
	if n := len(parts); n > 0 && parts[n-1].Op == syntax.OpEndText {
		e.ends, parts = true, parts[:n-1]
	}
	e.middle = &syntax.Regexp{Op: syntax.OpConcat, Sub: parts}
	if len(parts) == 0 {
		e.middle.Op = syntax.OpEmptyMatch
	}
	return e
}

// whole is a pattern for gateways to which the whole text has to fit, as well as for those to which a part is enough.
func whole(text string) string {
	e := parsed(text)
	switch {
	case e.begins && e.ends:
		return text
	case e.begins:
		return "^(?:" + text + ").*$"
	case e.ends:
		return "^.*(?:" + text + ")$"
	}
	return "^.*(?:" + text + ").*$"
}

// ofCookie is a pattern of the value of a cookie for the header that has all of them.
func ofCookie(text string) string {
	e, before, after := parsed(text), "[^;]*", "[^;]*"
	if e.begins {
		before = ""
	}
	if e.ends {
		after = ""
	}
	stay(e.middle)
	return before + "(?:" + e.middle.String() + ")" + after
}

// stay keeps a pattern from going on into the next cookie.
func stay(tree *syntax.Regexp) {
	const end = ';'
	switch tree.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		tree.Op, tree.Rune = syntax.OpCharClass, []rune{0, end - 1, end + 1, unicode.MaxRune}
	case syntax.OpCharClass:
		var rest []rune
		for i := 0; i+1 < len(tree.Rune); i += 2 {
			from, to := tree.Rune[i], tree.Rune[i+1]
			if from <= end && end <= to {
				if from < end {
					rest = append(rest, from, end-1)
				}
				from = end + 1
			}
			if from <= to {
				rest = append(rest, from, to)
			}
		}
		tree.Rune = rest
	}
	for _, sub := range tree.Sub {
		stay(sub)
	}
}

// anchored reports whether the expression asks for a beginning or an end within it. In a text that is a part of another
// one, as a cookie's value is of a header, that is never there.
func (e expression) anchored() bool { return asks(e.middle) }

func asks(tree *syntax.Regexp) bool {
	switch tree.Op {
	case syntax.OpBeginText, syntax.OpEndText, syntax.OpBeginLine, syntax.OpEndLine:
		return true
	}
	return slices.ContainsFunc(tree.Sub, asks)
}

// literal is what every text begins with that fits; "" = anything.
func (e expression) literal() string {
	if first := e.middle; e.begins && len(first.Sub) > 0 && first.Sub[0].Op == syntax.OpLiteral && first.Sub[0].Flags&syntax.FoldCase == 0 {
		return string(first.Sub[0].Rune)
	}
	return ""
}

// unsettled finds two rules of which a request may fit both, and that gateways put in different orders: the Gateway API
// says where exact paths and prefixes go, and leaves the place of patterns open. false = there are none.
func unsettled(all []variant) (first, second variant, found bool) {
	begins := func(p spillway.PathMatch) string {
		if p.Kind == spillway.PathPattern {
			return parsed(p.Text).literal()
		}
		return p.Text
	}
	open := func(v variant) bool { return v.Path.Kind != spillway.PathExact && !anyPath(v.Path) }
	for i, v := range all {
		for _, w := range all[i+1:] {
			patterns := v.Path.Kind == spillway.PathPattern || w.Path.Kind == spillway.PathPattern
			if v.of == w.of || v.Path == w.Path || !patterns || !open(v) || !open(w) || exclude(v.HTTPRule, w.HTTPRule) {
				continue
			}
			if x, y := begins(v.Path), begins(w.Path); strings.HasPrefix(x, y) || strings.HasPrefix(y, x) {
				return v, w, true
			}
		}
	}
	return first, second, false
}
