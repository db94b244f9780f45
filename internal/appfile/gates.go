package appfile

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// maxLatency bounds the work that the proxy does for each answer: a gate on one quantile counts once, one on
// latency relative to stable for each of its five.
const maxLatency = 16

// metrics are what a gate can be about, in the order of the documentation.
var metrics = [...]string{"errors", "latency", "p50", "p75", "p90", "p95", "p99", "rps", "restarts", "cpu", "memory", "query", "http", "run"}

var (
	condition = regexp.MustCompile(`^(errors|latency|p50|p75|p90|p95|p99|rps|restarts|cpu|memory) *(<=|>=|==|<|>) *([0-9][0-9.A-Za-z]*%?( +stable)?)( +for +([0-9][0-9.a-z]*))?$`)
	gateText  = regexp.MustCompile(`^(query|http|run):\s*\S|` + condition.String())
	windowEnd = regexp.MustCompile(`\s+for\s+([0-9][0-9.a-z]*)$`)
	decimal   = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,6})?$`)
	multiple  = regexp.MustCompile(`^([0-9]{1,3}(\.[0-9]{1,2})?)x +stable$`)
	wholeText = regexp.MustCompile(`^[0-9]{1,6}$`)
	percents  = regexp.MustCompile(`^([0-9]{1,6}(\.[0-9]{1,2})?)%$`)
)

// gateShape is a condition of a rollout: text, or a mapping that says more about it.
func gateShape() shape {
	text := gateTextShape("a gate", gateText, "")
	return anyShape{text, gateMapping{objectShape{name: "a mapping with gate, query, http or run", keys: []key{
		{name: "gate", example: "errors < 2x stable", shape: text, doc: "The condition, as it could stand in the list by itself."},
		{name: "query", example: "sum(rate(failed[1m])) < 5", shape: gateTextShape("a query", filled, "query: "),
			doc: "A question to the Prometheus of the app: PromQL, a comparison and a number."},
		{name: "http", example: "http://127.0.0.1:9000/ok", shape: gateTextShape("a URL", filled, "http: "), doc: "A URL that must answer 200 to 299."},
		{name: "run", example: "./check.sh", shape: gateTextShape("a command", filled, "run: "), doc: "A line for the shell that must end with 0."},
		{name: "from", example: "25%", shape: textShape{name: `a share like "25%"`, pattern: shareText, problem: tooMuch},
			doc: "The gate counts when the new release has at least this share of the users."},
		{name: "dry-run", example: "true", value: false, shape: boolShape{}, doc: "The gate is told, and nothing follows from it."},
	}}}}
}

// gateTextShape is text that makes a gate behind the prefix.
func gateTextShape(name string, pattern *regexp.Regexp, prefix string) textShape {
	return textShape{name: name, pattern: pattern, problem: func(text string) (string, string) {
		gate, err := parseGate(prefix + text)
		if err == nil {
			return "", ""
		}
		return err.Error(), gateHint(gate.Metric, text)
	}}
}

// gateMapping is a gate with what else there is to say about it.
type gateMapping struct{ objectShape }

func (s gateMapping) check(r *report, n *node, path, hint string) {
	s.objectShape.check(r, n, path, hint)
	var forms []string
	for _, e := range n.entries {
		if slices.Contains([]string{"gate", "query", "http", "run"}, e.name) {
			forms = append(forms, e.name)
		}
	}
	switch {
	case n.bad || len(forms) == 1:
	case forms == nil:
		r.add(n, path, "has no condition", `write {gate: "errors < 2x stable", from: 25%}`)
	default:
		r.add(n, path, "has several conditions: "+strings.Join(forms, ", "), "make each an item of the list")
	}
}

// gateOf reads a gate in one of its forms.
func gateOf(n *node) (spillway.Gate, error) {
	if n.kind != aMapping {
		gate, err := parseGate(n.text)
		return asStored(gate), err
	}
	text := text(n.child("gate"), "")
	for _, form := range []string{"query", "http", "run"} {
		if c := n.child(form); c != nil {
			text = form + ": " + c.text
		}
	}
	gate, err := parseGate(text)
	gate.DryRun = n.child("dry-run") != nil && strings.EqualFold(n.child("dry-run").text, "true")
	if from := n.child("from"); from != nil && err == nil {
		gate.From, err = spillway.ParseShare(from.text)
	}
	return asStored(gate), err
}

// asStored leaves the operator out where the metric says it, as releases have it that were stored by the
// first version: a deploy of the same file is then the same.
func asStored(g spillway.Gate) spillway.Gate {
	if (g.Metric == "errors" || g.Metric == "restarts") && !g.DryRun {
		g.Op = ""
	}
	return g
}

// parseGate reads METRIC OP VALUE [for WINDOW], or what is asked of something outside. With an error, the
// gate has the metric if that is known.
func parseGate(text string) (spillway.Gate, error) {
	word, rest, _ := strings.Cut(text, ":")
	switch gate := (spillway.Gate{Text: text, Metric: word}); word {
	case "query":
		return parseQuery(gate, rest)
	case "http":
		gate.Source, gate.For = cutWindow(rest)
		_, err := parseURL(gate.Source)
		return gate, err
	case "run":
		gate.Source = strings.TrimSpace(rest)
		if gate.Source == "" {
			return gate, fmt.Errorf("is blank")
		}
		return gate, nil
	}
	m := condition.FindStringSubmatch(text)
	if m == nil {
		first := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" <>=:", r) })
		gate := spillway.Gate{}
		if len(first) > 0 && slices.Contains(metrics[:], first[0]) {
			gate.Metric = first[0]
		}
		return gate, fmt.Errorf("%s is not a gate", quote(text))
	}
	gate := spillway.Gate{Text: text, Metric: m[1], Op: m[2]}
	if window := m[6]; window != "" {
		if err := windowOf(&gate, window); err != nil {
			return gate, err
		}
	}
	return gate, valueOf(&gate, m[3])
}

// windowOf reads how long a gate has to be broken.
func windowOf(gate *spillway.Gate, window string) error {
	switch d, err := time.ParseDuration(window); {
	case gate.Metric == "restarts":
		return fmt.Errorf("%s has a window, but restarts are counted from the beginning", quote(gate.Text))
	case gate.Metric != "rps" && gate.Metric != "cpu" && gate.Metric != "memory":
		return fmt.Errorf("%s has a window, but %s is judged by count, not by clock: each answer counts at once", quote(gate.Text), gate.Metric)
	case err != nil || d <= 0 || d > day || d%time.Millisecond != 0:
		return fmt.Errorf("%s is not a window like 30s or 5m, of at most %s", quote(window), spillway.Duration(day))
	default:
		gate.For = spillway.Duration(d)
		return nil
	}
}

// valueOf reads what the metric is compared with.
func valueOf(gate *spillway.Gate, value string) error {
	switch gate.Metric {
	case "restarts":
		return restartsOf(gate, value)
	case "rps", "cpu", "memory":
		return amountOf(gate, value)
	}
	if gate.Op != "<" {
		return fmt.Errorf("%s does not say what is too much: %s is compared by <", quote(gate.Text), gate.Metric)
	}
	if m := multiple.FindStringSubmatch(value); m != nil {
		return factorOf(gate, m[1])
	}
	if gate.Metric == "errors" {
		return errorsOf(gate, value)
	}
	d, err := time.ParseDuration(value)
	switch {
	case err != nil || !durationText.MatchString(value):
		return fmt.Errorf("%s is not a duration, nor a multiple of stable's", quote(value))
	case d < time.Millisecond || d > time.Hour || d%time.Microsecond != 0:
		return fmt.Errorf("%s is out of range: 1ms to 1h", value)
	}
	gate.Value = d.Seconds()
	return nil
}

// amountOf reads a number of requests a second, a share of the CPU or an amount of memory.
func amountOf(gate *spillway.Gate, value string) error {
	var err error
	switch m := percents.FindStringSubmatch(value); {
	case gate.Metric == "rps" && decimal.MatchString(value):
		gate.Value, err = strconv.ParseFloat(value, 64)
	case gate.Metric == "cpu" && m != nil:
		gate.Value, err = strconv.ParseFloat(m[1], 64)
		gate.Value /= 100
	case gate.Metric == "memory" && memoryAmount.MatchString(value):
		var bytes spillway.Bytes
		bytes, err = spillway.ParseBytes(value)
		gate.Value = float64(bytes)
	default:
		err = spillway.ErrInvalid
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s is not what %s is measured in", quote(value), gate.Metric)
	case gate.Op == "==":
		return fmt.Errorf("%s would need exactly that: %s is compared by <, <=, > or >=", quote(gate.Text), gate.Metric)
	case gate.Op == "<" && gate.Value == 0:
		return fmt.Errorf("%s can never hold", quote(gate.Text))
	}
	return nil
}

// factorOf reads a multiple of what stable has.
func factorOf(gate *spillway.Gate, number string) error {
	hundredths, err := spillway.ParseShare(number + "%")
	switch {
	case err != nil:
		return fmt.Errorf("%s is above 100", quote(gate.Text))
	case hundredths == 0:
		return fmt.Errorf("%s can never hold", quote(gate.Text))
	case hundredths < 100 && gate.Metric == "errors":
		return fmt.Errorf("%s asks for fewer errors than stable has: the factor is at least 1", quote(gate.Text))
	case hundredths < 100:
		return fmt.Errorf("%s asks for a release faster than stable: the factor is at least 1", quote(gate.Text))
	}
	gate.Factor = int(hundredths)
	return nil
}

func errorsOf(gate *spillway.Gate, value string) error {
	limit, err := spillway.ParseShare(value)
	switch {
	case !percents.MatchString(value):
		return fmt.Errorf("%s is not a gate", quote(gate.Text))
	case err != nil:
		return fmt.Errorf("%s is above 100", quote(gate.Text))
	case limit == 0:
		return fmt.Errorf("%s can never hold", quote(gate.Text))
	}
	gate.Limit = limit
	return nil
}

func restartsOf(gate *spillway.Gate, value string) error {
	if !wholeText.MatchString(value) || gate.Op != "<=" && gate.Op != "==" {
		return fmt.Errorf("%s is not a gate", quote(gate.Text))
	}
	gate.Max, _ = strconv.Atoi(value)
	if gate.Op == "==" && gate.Max != 0 {
		return fmt.Errorf("%s would need a restart: write restarts <= %d", quote(gate.Text), gate.Max)
	}
	return nil
}

// cutWindow takes " for 30s" from the end of a text; 0 when it has none.
func cutWindow(text string) (rest string, window spillway.Duration) {
	text = strings.TrimSpace(text)
	if m := windowEnd.FindStringSubmatchIndex(text); m != nil {
		d, err := time.ParseDuration(text[m[2]:m[3]])
		if err == nil && d > 0 && d <= day && d%time.Millisecond == 0 {
			return text[:m[0]], spillway.Duration(d)
		}
	}
	return text, 0
}

// parseQuery reads PROMQL OP VALUE [for WINDOW]: the last comparison outside of brackets and quotes splits.
func parseQuery(gate spillway.Gate, text string) (spillway.Gate, error) {
	text, gate.For = cutWindow(text)
	at, op, err := lastComparison(text)
	switch {
	case err != nil:
		return gate, err
	case op == "":
		return gate, fmt.Errorf("%s compares nothing", quote(text))
	case op == "!=":
		return gate, fmt.Errorf("%s compares with !=, which holds for almost every number", quote(text))
	}
	gate.Op, gate.Source = op, strings.TrimSpace(text[:at])
	number := strings.TrimSpace(text[at+len(op):])
	gate.Value, err = strconv.ParseFloat(number, 64)
	switch {
	case err != nil || math.IsInf(gate.Value, 0) || math.IsNaN(gate.Value):
		return gate, fmt.Errorf("%s is not a number to compare with", quote(number))
	case gate.Source == "":
		return gate, fmt.Errorf("%s asks nothing before its comparison", quote(text))
	}
	return gate, nil
}

// lastComparison finds the last comparison of a PromQL text outside of brackets and quotes; op is ""
// when there is none.
func lastComparison(text string) (at int, op string, err error) {
	var open []byte
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"', '\'', '`':
			length := quoted(text[i:])
			if length == 0 {
				return 0, "", fmt.Errorf("%s has a quote that does not end", quote(text))
			}
			i += length - 1
		case '(', '[', '{':
			open = append(open, c)
		case ')', ']', '}':
			if len(open) == 0 || open[len(open)-1] != "([{"[strings.IndexByte(")]}", c)] {
				return 0, "", fmt.Errorf("%s has a %c too many", quote(text), c)
			}
			open = open[:len(open)-1]
		case '<', '>', '=', '!':
			found := text[i : i+1]
			if strings.HasPrefix(text[i+1:], "=") {
				found = text[i : i+2]
			}
			if len(open) == 0 && found != "=" && found != "!" {
				at, op = i, found
			}
			i += len(found) - 1
		}
	}
	if len(open) > 0 {
		return 0, "", fmt.Errorf("%s has a %c that is not closed", quote(text), open[len(open)-1])
	}
	return at, op, nil
}

// quoted is the length of the quoted text that begins a text, with its quotes; 0 when it does not end.
func quoted(text string) int {
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == text[0]:
			return i + 1
		case text[i] == '\\' && text[0] != '`':
			i++
		}
	}
	return 0
}

// gateHint says how to write a gate on a metric; "" is no metric that there is.
func gateHint(metric, text string) string {
	switch metric {
	case "errors":
		return "write errors < 2x stable or errors < 2%"
	case "latency", "p50", "p75", "p90", "p95", "p99":
		return "write " + metric + " < 1.5x stable or " + metric + " < 300ms"
	case "rps":
		return "write rps > 5 or rps > 5 for 1m"
	case "restarts":
		return "write restarts <= 3 or restarts == 0"
	case "cpu":
		return "write cpu < 80% or cpu < 80% for 1m"
	case "memory":
		return "write memory < 400Mi or memory < 400Mi for 1m"
	case "query":
		return "write query: PROMQL < 5, with any comparison but != and any number"
	case "http":
		return "write http: http://127.0.0.1:9000/ok"
	case "run":
		return "write run: ./check.sh"
	}
	first := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" <>=:", r) })
	if len(first) > 0 {
		if near := closest(first[0], metrics[:]); near != "" {
			return "did you mean " + near + "? " + gateHint(near, "")
		}
	}
	return "a gate is METRIC < VALUE; the metrics are " + strings.Join(metrics[:], ", ")
}
