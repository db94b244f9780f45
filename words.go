package spillway

import (
	"slices"
	"strings"
)

// Words gives a command of the service as a program and its arguments, so that it can be started where there is no
// shell, as in most images of one program. A line for the shell is taken apart where a shell would do nothing with
// it but split it, unquote it and put in variables that the service is given.
//
// The words have the notation of the command of a Kubernetes container: $(PORT) stands for the value of PORT, and
// $$ for $. "./www --port $PORT" is ./www, --port and $(PORT). Problem says what keeps the command from being
// taken apart, "" when nothing does: "a pipe or another | of the shell".
func (s Service) Words(c Command) (words []string, problem string) {
	if len(c.Exec) == 0 {
		l := line{service: s, rest: c.Shell}
		return l.words()
	}
	for _, arg := range c.Exec { // as the local platform reads them: no splitting, no quotes, but variables
		l := line{service: s, rest: arg}
		for l.rest != "" && l.problem == "" {
			if plain, after, found := strings.Cut(l.rest, "$"); found && strings.HasPrefix(after, "$") {
				l.word.WriteString(plain + "$$")
				l.rest = after[1:]
			} else if l.word.WriteString(plain); found {
				l.rest = after
				l.variable(true)
			} else {
				l.rest = ""
			}
		}
		if l.problem != "" {
			return nil, l.problem
		}
		words = append(words, l.word.String())
	}
	return words, ""
}

// variables are those that each replica is given, beside its env and the addresses of what it needs.
var variables = []string{
	"PORT", "HOST", "SPILLWAY_APP", "SPILLWAY_SERVICE", "SPILLWAY_ENVIRONMENT", "SPILLWAY_TRACK", "SPILLWAY_RELEASE", "SPILLWAY_REPLICA",
}

// shellWords begin a line that only a shell can run: they are words of its grammar, or commands inside it.
var shellWords = []string{
	"!", ".", "alias", "case", "cd", "command", "eval", "exec", "exit", "export", "for", "if", "read", "readonly", "set",
	"shift", "source", "trap", "type", "ulimit", "umask", "unset", "until", "wait", "while",
}

// line is a line for the shell that is being taken apart.
type line struct {
	service Service
	rest    string // not read yet
	word    strings.Builder
	begun   bool // there is a word, be it empty: ""
	problem string
}

// words splits the line as POSIX has it: "Shell Command Language", 2.2 Quoting and 2.3 Token Recognition.
func (l *line) words() (words []string, problem string) {
	end := func() {
		if l.begun {
			words = append(words, l.word.String())
		}
		l.word.Reset()
		l.begun = false
	}
	l.rest = strings.TrimSpace(l.rest)
	if after, ok := strings.CutPrefix(l.rest, "exec "); ok && !strings.HasPrefix(strings.TrimSpace(after), "-") {
		l.rest = strings.TrimSpace(after) // the shell would become the program: there is no difference without one
	}
	assigns := false
	for l.rest != "" && l.problem == "" {
		c := l.rest[0]
		if c == '=' && len(words) == 0 {
			assigns = true
		}
		l.rest = l.rest[1:]
		switch {
		case c == ' ' || c == '\t':
			end()
		case c == '\'':
			l.single()
		case c == '"':
			l.double()
		case c == '$':
			l.begun = true
			l.variable(false)
		case strings.IndexByte("|&;<>()`*?[]{}\\\n!", c) >= 0 || c == '~' && !l.begun || c == '#' && !l.begun:
			l.problem = "a " + name(c) + ", which only a shell understands"
		default:
			l.begun = true
			l.word.WriteByte(c)
		}
	}
	end()
	switch {
	case l.problem != "":
		return nil, l.problem
	case len(words) == 0:
		return nil, "no program"
	case assigns:
		return nil, "an assignment before the program: write it under env"
	case slices.Contains(shellWords, words[0]):
		return nil, words[0] + ", which is a command of the shell itself"
	}
	return words, ""
}

// name shows a character that may not be visible.
func name(c byte) string {
	if c == '\n' {
		return "second line"
	}
	return string(c)
}

// single reads the rest of text in single quotes: everything in it is itself.
func (l *line) single() {
	text, after, closed := strings.Cut(l.rest, "'")
	if !closed {
		l.problem = "a ' that is not closed"
	}
	l.begun, l.rest = true, after
	l.word.WriteString(strings.ReplaceAll(text, "$", "$$"))
}

// double reads the rest of text in double quotes: variables and \ before " \ and $ are special in it.
func (l *line) double() {
	l.begun = true
	for l.rest != "" && l.problem == "" {
		c := l.rest[0]
		l.rest = l.rest[1:]
		switch {
		case c == '"':
			return
		case c == '$':
			l.variable(true)
		case c == '`':
			l.problem = "a `, which only a shell understands"
		case c == '\\' && strings.HasPrefix(l.rest, "\n"): // the line goes on
			l.rest = l.rest[1:]
		case c == '\\' && l.rest != "" && strings.IndexByte("\"\\`", l.rest[0]) >= 0:
			l.word.WriteByte(l.rest[0])
			l.rest = l.rest[1:]
		case c == '\\' && strings.HasPrefix(l.rest, "$"):
			l.word.WriteString("$$")
			l.rest = l.rest[1:]
		default:
			l.word.WriteByte(c)
		}
	}
	if l.problem == "" {
		l.problem = `a " that is not closed`
	}
}

// variable reads the name behind a $. Where it is not quoted, a shell splits the value at spaces, puts file names in
// place of a *, and drops an empty one.
//
//	$PORT ${PORT}
func (l *line) variable(quoted bool) {
	braces := strings.HasPrefix(l.rest, "{")
	text := strings.TrimPrefix(l.rest, "{")
	n := 0
	for n < len(text) && (text[n] == '_' || text[n]|0x20 >= 'a' && text[n]|0x20 <= 'z' || n > 0 && text[n] >= '0' && text[n] <= '9') {
		n++
	}
	variable, after := text[:n], text[n:]
	if braces {
		var closed bool
		if after, closed = strings.CutPrefix(after, "}"); !closed {
			n = 0
		}
	}
	switch value, own := l.service.Env[variable]; {
	case n == 0:
		l.problem = "a $ that begins no name of a variable"
	case own && !quoted && (value == "" || strings.ContainsAny(value, " \t\n*?[")):
		l.problem = "$" + variable + ", whose value a shell would split: write \"$" + variable + "\""
	case !own && !slices.Contains(variables, variable) && !l.service.address(variable):
		l.problem = "$" + variable + ", which is no variable that the service is given"
	default:
		l.word.WriteString("$(" + variable + ")")
	}
	l.rest = after
}

// address reports whether a variable is the address of something that the service needs: BACKEND_URL.
func (s Service) address(variable string) bool {
	return slices.ContainsFunc(s.Needs, func(need string) bool {
		part, ok := strings.CutPrefix(variable, strings.ToUpper(strings.ReplaceAll(need, "-", "_"))+"_")
		return ok && (part == "HOST" || part == "PORT" || part == "URL")
	})
}
