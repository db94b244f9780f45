package appfile

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// The patterns of single values. They are also the patterns of the schema.
var (
	filled       = regexp.MustCompile(`\S`)
	envName      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	hostName     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	probePath    = regexp.MustCompile(`^/[!-"$-~]*$`)
	relative     = regexp.MustCompile(`^[^/]`)
	shareText    = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,2})?%$`)
	targetShare  = regexp.MustCompile(`^[1-9][0-9]{0,2}%$`)
	stepPattern  = regexp.MustCompile(`^(pause|([0-9]{1,2}(\.[0-9]{1,2})?%)( +(0|([0-9]+(\.[0-9]+)?(ms|s|m|h))+))?)$`)
	usersText    = regexp.MustCompile(`^([0-9]{1,3}(\.[0-9]{1,2})?%) +of +users$`)
	absolute     = regexp.MustCompile(`^/.*[^/]$`)
	branchName   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._/-]*$`)
	webURL       = regexp.MustCompile(`^https?://[^\s/?#@]+[^\s?#]*$`)
	emailText    = regexp.MustCompile(`^[^\s@<>,;:"]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$`)
	directoryURL = regexp.MustCompile(`^https://[^\s/?#@]+[^\s#]*$`)
	cookieRule   = regexp.MustCompile("^([A-Za-z0-9!#$%&'*+.^_`|~-]+)=([!#-+./0-9:<-\\[\\]-~-]+)$")
	headerRule   = regexp.MustCompile("^([A-Za-z0-9!#$%&'*+.^_`|~-]+)=([!-~]([ -~]*[!-~])?)$")
	shareOrAuto  = regexp.MustCompile(`^(auto|[0-9]{1,3}(\.[0-9]{1,2})?%)$`)
	keyPattern   = regexp.MustCompile("^(header|cookie) +([A-Za-z0-9!#$%&'*+.^_`|~-]+)$")
	cpuAmount    = regexp.MustCompile(`^([0-9]{1,6}m|[0-9]{1,4}(\.[0-9]{1,3})?)$`)
	memoryAmount = regexp.MustCompile(`^[0-9]{1,15}(Gi|Mi|Ki|GB|MB|KB|G|M|K|B)?$`)
)

// labelPattern is a DNS label of 1 to most characters.
func labelPattern(most int) *regexp.Regexp {
	return regexp.MustCompile(fmt.Sprintf(`^[a-z0-9]([a-z0-9-]{0,%d}[a-z0-9])?$`, most-2))
}

// label is text that is a DNS label.
func label(name string, most int) textShape {
	return textShape{name: name, pattern: labelPattern(most)}
}

// filledText is text that is not blank.
func filledText(name string) textShape {
	return textShape{name: name, pattern: filled, problem: func(text string) (string, string) {
		if strings.TrimSpace(text) == "" {
			return "is blank", ""
		}
		return "", ""
	}}
}

// wordText is any text: an argument of a command, a value of a variable.
func wordText() textShape { return textShape{name: "text"} }

// buildDir is a directory inside that of the app file.
func buildDir() textShape {
	return textShape{name: "a directory", pattern: relative, problem: func(text string) (string, string) {
		clean := strings.TrimPrefix(path.Clean("/"+text), "/")
		switch {
		case strings.HasPrefix(text, "/"):
			return quote(text) + " is an absolute path", "write it relative to the app file, such as ./web"
		case strings.Contains("/"+text+"/", "/../"):
			return quote(text) + " contains ..", "a build directory is inside that of the app file: write ./" + clean + " or move the app file up"
		}
		return "", ""
	}}
}

// hostText is the name of a host, exactly as browsers send it.
func hostText() textShape {
	return textShape{name: "a host name", pattern: hostName, problem: func(text string) (string, string) {
		bare := text
		if _, rest, ok := strings.Cut(text, "://"); ok {
			bare = rest
		}
		bare, rest, _ := strings.Cut(bare, "/")
		bare, _, _ = strings.Cut(bare, ":")
		bare = strings.TrimSuffix(strings.ToLower(bare), ".")
		hint := ""
		if hostName.MatchString(bare) {
			hint = "write host: " + bare
		}
		switch {
		case len(text) > 253:
			return "is longer than 253 characters", ""
		case strings.Contains(text, "://"):
			return quote(text) + " is a URL, not a host name", hint
		case strings.Contains(text, "*"):
			return quote(text) + " has a *: here host names are exact", "list each name"
		case strings.Contains(text, "/") || rest != "":
			return quote(text) + " has a path", hint
		case strings.Contains(text, ":"):
			return quote(text) + " has a port", hint
		case hint != "" && bare != text:
			return quote(text) + " is not in the exact form of a host name", hint
		}
		return "", ""
	}}
}

// pathText is the path of a probe.
func pathText() textShape {
	return textShape{name: "a path like /healthz", pattern: probePath, problem: func(text string) (string, string) {
		if !strings.HasPrefix(text, "/") && probePath.MatchString("/"+text) && !strings.Contains(text, ":") {
			return quote(text) + " does not begin with /", "write /" + text
		}
		return "", ""
	}}
}

// reservedEnv says that a variable is Spillway's to set.
func reservedEnv(name string) (problem, hint string) {
	if name == "PORT" || name == "HOST" || strings.HasPrefix(name, "SPILLWAY_") {
		return "is set by Spillway for each replica", "remove it; the program reads it from its environment, and run can use $" + name
	}
	return "", ""
}

// stepText is one step of a canary.
func stepText() textShape {
	return textShape{name: "a step like 5% 2m, 1% or pause", pattern: stepPattern, problem: func(text string) (string, string) {
		if strings.HasPrefix(text, "100%") {
			return quote(text) + " is the end of every rollout, not a step", "remove it"
		}
		if !stepPattern.MatchString(text) {
			return "", ""
		}
		step, err := parseStep(text)
		switch {
		case err != nil || step.Hold > spillway.Duration(month):
			return quote(text) + " has a hold of more than " + spillway.Duration(month).String(), ""
		case time.Duration(step.Hold)%time.Millisecond != 0:
			return quote(text) + " has a hold finer than 1ms", ""
		case step.Weight == 0 && !step.Pause:
			return quote(text) + " gives the new release nobody", "the smallest step is 0.01%"
		}
		return "", ""
	}}
}

// parseStep reads a step that has the pattern of one. The weight of a pause is 0.
func parseStep(text string) (spillway.StepSpec, error) {
	if text == "pause" {
		return spillway.StepSpec{Pause: true}, nil
	}
	fields := strings.Fields(text)
	weight, err := spillway.ParseShare(fields[0])
	step := spillway.StepSpec{Weight: weight}
	if err == nil && len(fields) == 2 {
		err = step.Hold.UnmarshalText([]byte(fields[1]))
	}
	return step, err
}

// keySourceText is one place of a request that says who the user is.
func keySourceText() textShape {
	return textShape{name: "header NAME or cookie NAME", pattern: keyPattern}
}

// parseCPU and parseMemory say what is wrong with an amount that has the right pattern.
func parseCPU(text string) string {
	if v, err := spillway.ParseMilli(text); err != nil || v < 1 {
		return text + " is no CPU at all"
	}
	return ""
}

func parseMemory(text string) string {
	v, err := spillway.ParseBytes(text)
	switch {
	case err != nil:
		return text + " is not an amount of memory"
	case v < 1<<20:
		return fmt.Sprintf("%s is %d bytes, less than 1Mi", text, v)
	}
	return ""
}

// amountShape is a number with or without a unit.
type amountShape struct {
	name    string
	pattern *regexp.Regexp
	problem func(text string) string // of a text with the pattern; "" when it is fine
}

func (s amountShape) noun() string { return s.name }
func (s amountShape) takes(k kind) bool {
	return k == aText || k == aWhole || k == aNumber
}

func (s amountShape) check(r *report, n *node, path, hint string) {
	if !s.pattern.MatchString(n.text) {
		r.add(n, path, quote(n.text)+" is not "+s.name, hint)
	} else if problem := s.problem(n.text); problem != "" {
		r.add(n, path, problem, hint)
	}
}

func (s amountShape) schema() map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "number", "exclusiveMinimum": 0},
		map[string]any{"type": "string", "pattern": s.pattern.String()},
	}}
}
