package spillway_test

import (
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
