//go:build sim

package sim_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutants are mistakes made in the engine by hand. Each has to be noticed by the seed or scenario named:
// that is the test of the simulator. A change of the simulator changes what seeds draw: SIM_FIND=3000 makes
// the test try that many seeds for each mutant, and print the first that catches it.
var mutants = []struct {
	name     string
	file     string // of ../rollout
	old, new string
	caught   string // "seed 12" or "scenario canary_climbs_on_evidence"
}{
	{"stops what an unacknowledged route still reaches", "desired.go", "quiet := t.acked() &&", "quiet :=", "seed 3"},
	{"stops what the served route still reaches", "desired.go", "t.weightOf(t.st.Route, g, wants) == 0 && t.weightOf(t.obs.Served, g, wants) == 0", "true", "seed 191"},
	{"stops what holds requests", "desired.go", "(o.InFlight == 0 || waited >= t.drainLimit(g))", "true", "seed 1"},
	{"believes an old observation about what runs", "desired.go", "for _, w := range t.st.Wants {", "for _, w := range t.st.Wants[:0] {", "seed 30"},
	{"counts the time before the first look as drained", "desired.go", "if began && !t.obs.NoData {", "if true || began {", "seed 60"},
	{"moves weight before capacity is ready", "progress.go", `if t.missing() == "" {`, "if true {", "seed 0"},
	{"goes on without an acknowledgement", "progress.go", "	if !t.acked() {\n		return\n	}\n	if r.Acked", "	if r.Acked", "scenario serving_waits_for_the_acknowledgement"},
	{"does not leave a harmful candidate", "leave.go", "	judgedHarmful,\n", "", "seed 5"},
	{"waits for stable's capacity before it leaves", "leave.go", "	for _, rule := range reasonsToLeave {", "	if t.missingOf(t.stable(), spillway.Whole) != \"\" {\n		return false\n	}\n	for _, rule := range reasonsToLeave {", "seed 7"},
	{"never gives up on a candidate that is not ready", "leave.go", "	notReadyInTime,\n", "", "seed 8"},
	{"finishes on the acknowledgement of the route before", "leave.go", "t.turned || !t.acked()", "false", "seed 191"},
	{"lets a newer deploy wait", "leave.go", "	newerWaits,\n", "", "scenario deploy_during_a_rollout_goes_back_first"},
	{"drops stable during the rollout", "desired.go", "return max(1, t.step().Stable.Of(size))", "return 0", "seed 0"},
	{"keeps the generation when the route changes", "desired.go", "		route.Generation++\n", "", "seed 2"},
	{"acts on an intent again after a restart", "intents.go", "		t.st.Intent = in.Seq\n", "", "seed 0"},
	{"ends without an event", "leave.go", "t.event(spillway.EventFinished, r.Release, \"%s\", ended(r.Release, outcome, reason)).Outcome = outcome", "_ = ended", "seed 0"},
	{"forgets a chosen size on deploy", "progress.go", "	t.st.Rollout = r\n	if !ok", "	t.st.Rollout, t.st.Sizes = r, nil\n	if !ok", "seed 0"},
	{"puts a host on two edges", "route.go", "w := way{old, cmp.Or(after[host], old)}", "w := way{old, old}\n		if new := after[host]; new != \"\" && new != old {\n			hosts[way{new, new}] = append(hosts[way{new, new}], host)\n		}", "scenario renamed_service_keeps_its_host"},
	{"measures the surge against the new size alone", "desired.go", "t.stableSize(was))", "t.stableSize(s)+0*len(was.Name))", "scenario rolling_to_a_smaller_scale"},
	{"crosses the tiers", "route.go", "inOld, inNew = inOld && fromStable, inNew && fromCandidate", "_, _ = fromStable, fromCandidate", "seed 0"},
	{"starts the recreated before the old is gone", "desired.go", "		if !r.Cleared {\n			return 0\n		}\n		return n", "		return n", "scenario recreate_stops_before_it_starts"},
	{"waits for ever for recreated replicas", "progress.go", "r.Cleared = r.Cleared || t.recreatesAny() && t.recreatedGone(t.stable(), t.candidate())", "_ = t.recreatesAny", "scenario recreate_stops_before_it_starts"},
	{"pauses where nothing serves", "intents.go", "case t.recreatesAny() && t.replacing():", "case false:", "scenario recreate_is_not_paused_in_its_gap"},
	{"blames a release for what came before it", "leave.go", "n >= before {", "n < before {", "scenario rollback_forgives_old_restarts"},
	{"shows two colours", "steps.go", "case spillway.BlueGreen, spillway.Recreate:", "case spillway.Recreate:", "scenario blue_green_is_one_switch"},
	{"counts the time before the watch", "promote.go", "t.watch(0)", "t.watch(t.dt)", "scenario watch_begins_with_the_acknowledgement"},
	{"skips the watch", "promote.go", "case r.Elapsed >= length:", "case true:", "scenario blue_green_is_one_switch"},
	{"promotes what does not serve", "promote.go", `case t.silent() != "":`, `case t.silent() == "no":`, "scenario watch_waits_for_a_candidate_that_serves"},
	{"promotes while the judge cannot be heard", "promote.go", "case t.obs.NoData: // it", "case false: // it", "seed 490"},
	{"goes on without a certificate", "progress.go", "case !step.Certify || t.certified() ||", "case true || t.certified() ||", "scenario thin_evidence_waits_for_a_person"},
	{"believes in a clock that jumps", "decide.go", "min(max(t.now.Sub(t.st.Now), 0), maxTick)", "t.now.Sub(t.st.Now)", "scenario clock_that_jumps_ends_no_watch"},
}

func TestMutants_AreCaught(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			overlay := mutate(t, m.file, m.old, m.new)
			kind, which, _ := strings.Cut(m.caught, " ")
			run, env := "TestOneSeed", "SIM_SEED="+which
			if kind == "scenario" {
				run, env = "TestScenarios/^"+which+"$", ""
			}
			if n := os.Getenv("SIM_FIND"); n != "" && kind == "seed" {
				run, env = "TestSeeds_KeepTheInvariants", "SIM_SEEDS="+n
			}
			out, err := goTest(overlay, run, env)
			if err == nil {
				t.Fatalf("not noticed by %s", m.caught)
			}
			if !strings.Contains(out, "--- FAIL: ") {
				t.Fatalf("it does not build:\n%s", out)
			}
			lines := strings.SplitN(out, "\n", 3)
			t.Logf("%.300s", lines[1])
		})
	}
}

// mutate writes the mutant and the overlay that puts it in place of the engine's file.
func mutate(t *testing.T, file, old, replacement string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "rollout", file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) != 1 {
		t.Fatalf("%s has the text of the mutant %d times, want 1: %q", file, strings.Count(string(text), old), old)
	}
	dir := t.TempDir()
	mutant, overlay := filepath.Join(dir, file), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(mutant, []byte(strings.Replace(string(text), old, replacement, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	swap, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, swap, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

func goTest(overlay, run, env string) (string, error) {
	cmd := exec.Command("go", "test", "-overlay", overlay, "-count=1", "-vet=off", "-timeout", "300s", "-run", run, ".")
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	return fmt.Sprintf("%s", out), err
}
