package spillway_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestWords_TakesApartWhatNeedsNoShell(t *testing.T) {
	s := spillway.Service{Needs: []string{"big-db"}, Env: map[string]string{"LEVEL": "info", "TEXT": "a b", "EMPTY": ""}}
	for line, want := range map[string][]string{
		`./www`:                                {"./www"},
		`  bin/web   --port $PORT `:            {"bin/web", "--port", "$(PORT)"},
		`exec bin/web -l "$HOST:${PORT}"`:      {"bin/web", "-l", "$(HOST):$(PORT)"},
		`web --db=$BIG_DB_URL -v=$LEVEL`:       {"web", "--db=$(BIG_DB_URL)", "-v=$(LEVEL)"},
		`web 'a $PORT' "b \"c\" \$5" d''e ""`:  {"web", "a $$PORT", `b "c" $$5`, "de", ""},
		`web "$TEXT" "$EMPTY" a#b c~d`:         {"web", "$(TEXT)", "$(EMPTY)", "a#b", "c~d"},
		`web --name=$SPILLWAY_REPLICA x=1 a=b`: {"web", "--name=$(SPILLWAY_REPLICA)", "x=1", "a=b"},
	} {
		if got, problem := s.Words(spillway.Command{Shell: line}); problem != "" || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, problem %q, want %q", line, got, problem, want)
		}
	}
}

func TestWords_SaysWhatNeedsAShell(t *testing.T) {
	s := spillway.Service{Env: map[string]string{"TEXT": "a b", "EMPTY": ""}}
	for line, want := range map[string]string{
		"a | b": "a |", "a && b": "a &", "a; b": "a ;", "a > f": "a >", "a `b`": "a `", "a *.txt": "a *", "a {b,c}": "a {", "a ~/x": "a ~",
		"a # b": "a #", "a\nb": "second line", `a \b`: `a \`, "A=1 web": "assignment", "cd x": "cd", "exec -a x web": "exec", "exec": "exec",
		"a $(b)": "begins no name", "a ${PORT:-1}": "begins no name", "a $1": "begins no name", "a $": "begins no name",
		"a $HOME": "$HOME", "a $TEXT": "split", "a $EMPTY": "split", "a 'b": "not closed", `a "b`: "not closed", "": "no program", "a \"`b`\"": "a `",
		"a $BIG_DB_URL": "$BIG_DB_URL",
	} {
		if got, problem := s.Words(spillway.Command{Shell: line}); !strings.Contains(problem, want) || problem == "" || got != nil {
			t.Errorf("%s: got %q, problem %q, want one with %q", line, got, problem, want)
		}
	}
}

// The words of a list are not split or unquoted; variables in them are replaced, and $$ is a $.
func TestWords_OfAList(t *testing.T) {
	s := spillway.Service{Env: map[string]string{"TEXT": "a b"}}
	got, problem := s.Words(spillway.Command{Exec: []string{"./web", "a | b", "$TEXT-${PORT}", "5$$", "'*'"}})
	if want := []string{"./web", "a | b", "$(TEXT)-$(PORT)", "5$$", "'*'"}; problem != "" || !slices.Equal(got, want) {
		t.Errorf("got %q, problem %q, want %q", got, problem, want)
	}
	if got, problem := s.Words(spillway.Command{Exec: []string{"./web", "$HOME"}}); problem == "" {
		t.Errorf("got %q for a variable of the machine", got)
	}
}

// Whatever is taken apart is what a shell would have started: it is asked.
func FuzzWords(f *testing.F) {
	for _, line := range []string{
		`./www`, `bin/web --port $PORT`, `web -l "$HOST:${PORT}" 'a $PORT' "b \"c\" \$5" d''e ""`, `web a#b c~d x=1`, "exec web", `a "\x" "\\" '"'`, "a\tb", `"a"b'c'`,
		`web --x=~ y:~`, "a \"b\nc\"", `a $LEVEL"$TEXT"`, "$LEVEL x", `a "$"`, `a '$$'`, "a\rb", "a \xff", "é ü", "a=~b", "a \"b\\\nc\"", "x \"`\"", "%s -n",
	} {
		f.Add(line)
	}
	env := map[string]string{"LEVEL": "info", "TEXT": "a  *", "EMPTY": "", "DOLLAR": "$(PORT)"}
	values := []string{"PORT=8080", "HOST=0.0.0.0", "LEVEL=info", "TEXT=a  *", "EMPTY=", "DOLLAR=$(PORT)", "PATH=/bin:/usr/bin", "LC_ALL=C"}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "SPILLWAY_") || strings.Contains(line, "\x00") {
			return
		}
		words, problem := spillway.Service{Env: env}.Words(spillway.Command{Shell: line})
		if (problem == "") == (words == nil) {
			t.Fatalf("%q: words %q and problem %q", line, words, problem)
		}
		if problem != "" {
			return
		}
		asked := strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(asked, "exec "); ok {
			asked = rest
		}
		sh := exec.Command("/bin/sh", "-c", `printf '%s\0' `+asked)
		sh.Env, sh.Dir = values, t.TempDir()
		out, err := sh.Output()
		if err != nil {
			t.Fatalf("%q: the shell does not understand it: %v, and the words are %q", line, err, words)
		}
		var got strings.Builder
		for _, w := range words {
			got.WriteString(expanded(w, values) + "\x00")
		}
		if got.String() != string(out) {
			t.Fatalf("%q: got %q, the shell makes %q of it", line, got.String(), out)
		}
	})
}

// expanded puts in variables as Kubernetes does: $(NAME) is the value, $$ is $.
func expanded(word string, env []string) string {
	var out strings.Builder
	for word != "" {
		plain, rest, found := strings.Cut(word, "$")
		out.WriteString(plain)
		if !found {
			break
		}
		if after, ok := strings.CutPrefix(rest, "$"); ok {
			out.WriteByte('$')
			word = after
			continue
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")")
		if !closed || !strings.HasPrefix(rest, "(") {
			out.WriteByte('$')
			word = rest
			continue
		}
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, name+"="); ok {
				out.WriteString(v)
			}
		}
		word = after
	}
	return out.String()
}
