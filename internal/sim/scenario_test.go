package sim_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway/internal/sim"
)

var update = flag.Bool("update", false, "write the transcripts; commit them only if every changed line can be explained")

// TestScenarios plays each file of testdata/scenarios: actions, a line "---", the transcript.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			actions, want, _ := strings.Cut(string(text), "---\n")
			got, err := sim.Play(actions)
			if err != nil {
				t.Fatalf("%s\n%v", got, err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(actions+"---\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("the transcript differs; run with -update and explain every changed line\n%s", got)
			}
		})
	}
}
