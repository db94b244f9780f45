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
	file     string // of ../rollout, or of the platform that keeps what it promises to it
	old, new string
	caught   string // "seed 12" or "scenario canary_climbs_on_evidence"
}{
	{"stops what an unacknowledged route still reaches", "desired.go", "quiet := t.acked() &&", "quiet :=", "seed 5"},
	{"stops what the served route still reaches", "desired.go", "t.weightOf(t.st.Route, g, wants) == 0 && t.weightOf(t.obs.Served, g, wants) == 0", "true", "scenario aborted_colour_leaves_the_dark_host"},
	{"stops what holds requests", "desired.go", "(o.InFlight == 0 || waited >= t.drainLimit(g))", "true", "seed 0"},
	{"believes an old observation about what runs", "desired.go", "for _, w := range t.st.Wants {", "for _, w := range t.st.Wants[:0] {", "scenario aborted_colour_leaves_the_dark_host"},
	{"counts the time before the first look as drained", "desired.go", "if began && !t.obs.NoData {", "if true || began {", "seed 15"},
	{"moves weight before capacity is ready", "progress.go", `if t.missing() == "" && (r.Cleared || !t.recreatesAny()) {`, "if true {", "seed 0"},
	{"goes on without an acknowledgement", "progress.go", "	if !t.acked() {\n		return\n	}\n	if r.Acked", "	if r.Acked", "scenario serving_waits_for_the_acknowledgement"},
	{"does not leave a harmful candidate", "leave.go", "	judgedHarmful,\n", "", "seed 6"},
	{"waits for stable's capacity before it leaves", "leave.go", "	for _, rule := range reasonsToLeave {", "	if t.missingOf(t.stable(), spillway.Whole) != \"\" {\n		return false\n	}\n	for _, rule := range reasonsToLeave {", "seed 0"},
	{"never gives up on a candidate that is not ready", "leave.go", "	notReadyInTime,\n", "", "seed 14"},
	{"finishes on the acknowledgement of the route before", "leave.go", "t.turned || !t.acked()", "false", "scenario abort_before_everything"},
	{"lets a newer deploy wait", "leave.go", "	newerWaits,\n", "", "scenario deploy_during_a_rollout_goes_back_first"},
	{"drops stable during the rollout", "desired.go", "return max(1, t.step().Stable.Of(size))", "return 0", "seed 0"},
	{"keeps the generation when the route changes", "desired.go", "		route.Generation++\n", "", "seed 0"},
	{"acts on an intent again after a restart", "intents.go", "		t.st.Intent = in.Seq\n", "", "seed 0"},
	{"ends without an event", "leave.go", "t.event(spillway.EventFinished, r.Release, \"%s\", ended(r.Release, r.Track, outcome, reason)).Outcome = outcome", "_ = ended", "seed 0"},
	{"forgets a chosen size on deploy", "progress.go", "	t.st.Rollout, t.dt = r, 0\n", "	t.st.Rollout, t.dt, t.st.Sizes = r, 0, nil\n", "seed 0"},
	{"puts a host on two edges", "route.go", "add(name, old, cmp.Or(after[name], old))", "add(name, old, old)\n		if new := cmp.Or(after[name], old); new != old {\n			add(name, new, new)\n		}", "scenario renamed_service_keeps_its_host"},
	{"measures the surge against the new size alone", "desired.go", "t.stableSize(was))", "t.stableSize(s)+0*len(was.Name))", "scenario rolling_to_a_smaller_scale"},
	{"crosses the tiers", "route.go", "inOld, inNew = inOld && fromStable, inNew && fromCandidate", "_, _ = fromStable, fromCandidate", "seed 0"},
	{"starts the recreated before the old is gone", "desired.go", "		if !r.Cleared {\n			return 0\n		}\n		return n", "		return n", "scenario recreate_stops_before_it_starts"},
	{"waits for ever for recreated replicas", "progress.go", "r.Cleared = r.Cleared || t.recreatesAny() && t.recreatedGone(t.stable(), t.candidate())", "_ = t.recreatesAny", "scenario recreate_stops_before_it_starts"},
	{"pauses where nothing serves", "intents.go", "case t.recreatesAny() && t.replacing():", "case false:", "scenario recreate_is_not_paused_in_its_gap"},
	{"blames a release for what came before it", "leave.go", "n := since(t.st.Rollout.Before, g, o.Restarts)", "n := o.Restarts", "scenario rollback_forgives_old_restarts"},
	{"shows two colours", "steps.go", "case spillway.BlueGreen, spillway.Recreate:", "case spillway.Recreate:", "scenario blue_green_is_one_switch"},
	{"counts the time before the watch", "promote.go", "t.watch(0)", "t.watch(t.dt)", "scenario watch_begins_with_the_acknowledgement"},
	{"counts time without a server", "progress.go", "t.obs.NoData || t.obs.Away {", "t.obs.NoData {", "scenario time_without_a_server_is_not_the_candidates"},
	{"skips the watch", "promote.go", "case r.Elapsed >= length && why == \"\":", "case why == \"\":", "scenario blue_green_is_one_switch"},
	{"promotes what does not serve", "promote.go", `case t.silent() != "":`, `case t.silent() == "no":`, "scenario watch_waits_for_a_candidate_that_serves"},
	{"promotes while the judge cannot be heard", "promote.go", "case t.obs.NoData: // it", "case false: // it", "seed 467"},
	{"goes on without a certificate", "progress.go", "(!step.Certify || t.unjudged() ||", "(true || t.unjudged() ||", "scenario thin_evidence_waits_for_a_person"},
	{"believes in a clock that jumps", "decide.go", "min(max(t.now.Sub(t.st.Now), 0), maxTick)", "t.now.Sub(t.st.Now)", "scenario clock_that_jumps_ends_no_watch"},
	{"believes an old answer of a gate", "gates.go", "t.now.Sub(o.At) > stale", "false", "scenario gate_nobody_asks_is_no_answer"},
	{"goes on without what the judge counts by", "gates.go", "r.Exposed && e.Verdict == spillway.NoData {", "false {", "scenario judge_without_data_waits_for_a_person"},
	{"takes no data for a broken gate", "gates.go", "			return false, spillway.NoData, o.Text\n", "			return false, spillway.Certified, o.Text\n", "scenario gate_without_data_waits_for_a_person"},
	{"goes on while a gate has no data", "gates.go", "return fmt.Sprintf(\"gate %s has no data: %s\", g.Text, state.Reason), max(state.Silent, 1)", "continue", "scenario gate_without_data_waits_for_a_person"},
	{"forgets how long a gate has been broken", "gates.go", "state.Broken = before.Broken + t.passed(g, before)", "state.Broken = before.Broken + 0*t.passed(g, before)", "scenario broken_gate_rolls_back_after_its_time"},
	{"gives a broken gate no time", "gates.go", "if state.Broken < g.For {", "if false {", "scenario broken_gate_rolls_back_after_its_time"},
	{"obeys a dry-run gate", "gates.go", "state.Verdict == spillway.Harmful && !g.DryRun &&", "state.Verdict == spillway.Harmful &&", "scenario dry_run_gate_is_only_told"},
	{"does not roll back for a gate", "leave.go", "	gateBroken,\n", "", "scenario busy_candidate_is_rolled_back_by_its_own_figure"},
	{"judges no latency", "route.go", "		case slow:\n			trial.Latency = append(trial.Latency, slower)\n", "		case slow:\n			_ = slower\n", "scenario slow_candidate_is_rolled_back"},
	{"begins in a freeze", "waits.go", "if q.Back || q.Force {", "if true {", "scenario freeze_holds_a_deploy_and_no_rollback"},
	{"freezes a rollback", "waits.go", "if q.Back || q.Force {", "if q.Force {", "scenario freeze_holds_a_deploy_and_no_rollback"},
	{"begins before the time", "waits.go", "if q.At.After(t.now) {", "if false {", "scenario deploy_waits_for_its_time"},
	{"lets a track go before stable", "waits.go", "list = append([]Queued{*q}, list...)", "list = append(list, *q)", "seed 1"},
	{"forgets the deploy to a track that gave way", "waits.go", "if r.Track == \"\" || outcome != spillway.Superseded || ", "if true || ", "scenario stable_goes_before_a_track"},
	{"keeps no dark colour", "standby.go", "keep > 0 && old.Number != 0 {", "keep > 0 && false {", "scenario warm_colour_takes_over_in_one_round"},
	{"keeps the dark colour for ever", "standby.go", "s.Left -= t.dt; s.Left > 0", "s.Left > 0", "scenario warm_colour_goes_when_its_time_is_over"},
	{"keeps too little of the dark colour", "standby.go", "n := max(t.size(s), wants[g].Replicas)", "n := max(1, wants[g].Replicas)", "scenario warm_colour_takes_over_in_one_round"},
	{"gives both colours one name", "standby.go", "	if other == \"blue\" {\n", "	if other == \"\" {\n", "scenario two_colours_are_never_the_same"},
	{"sends a track's calls to stable", "lanes.go", "	return g, ok\n}\n\n// trackShare", "	return t.stable().Group(service)\n}\n\n// trackShare", "scenario promoted_track_is_what_was_tried"},
	{"gives a track nothing to run on", "desired.go", "	t.laneWants(wants)", "	_ = t.laneWants", "scenario promoted_track_is_what_was_tried"},
	{"gives the share of a track twice", "lanes.go", "	list[0].Weight = rest\n", "	list[0].Weight = left\n", "scenario track_keeps_its_release_beside_stable"},
	{"leaves a harmful release in its track", "leave.go", "			t.closeTrack(track)\n", "			_ = track\n", "scenario harmful_release_leaves_every_track"},
	{"takes no late trip back", "waits.go", "	if t.trippedLate() {\n", "	if false {\n", "scenario harmful_in_the_moment_of_its_promotion"},
	{"begins before the last promotion is served", "waits.go", "return t.st.Last == nil || t.st.Last.Outcome != spillway.Succeeded || t.acked()", "return true", "scenario harmful_in_the_moment_of_its_promotion"},
	{"stops the replicas of a track that may come back", "lanes.go", "append(t.file().Config.Lanes(), t.stable().Config.Lanes()...)", "t.file().Config.Lanes()", "scenario track_that_goes_stays_until_the_promotion"},
	{"keeps from the data plane that it knows of the trip", "route.go", "route.Trial, route.Over = t.trial(), t.st.Tripped", "route.Trial = t.trial()", "seed 211"},
	{"runs no release command", "tasks.go", "!s.Release.Zero() && slices.Contains", "s.Release.Zero() && slices.Contains", "scenario release_command_fails_and_nothing_starts"},
	{"starts beside the release command", "tasks.go", "	if t.prepared() {\n		return true\n	}\n	if _, old", "	if true {\n		return true\n	}\n	if _, old", "scenario release_command_runs_once_whatever_crashes"},
	{"takes back a release command that has begun", "tasks.go", "r.Begun = r.Begun || t.needsOfTask(tasks[0])", "r.Begun = t.needsOfTask(tasks[0])", "seed 52"},
	{"goes on after a release command that failed", "leave.go", "	taskFailed,\n", "", "scenario release_command_fails_and_nothing_starts"},
	{"starts what needs before what is needed", "tasks.go", "t.ready(g) < t.candidateCapacity(n) {\n			return false", "t.candidateCapacity(n) < 0 {\n			return false", "scenario needs_start_first"},
	{"chooses a size beyond the file", "intents.go", "if s.Max > 0 && (n > s.Max", "if s.Max < 0 && (n > s.Max", "scenario size_stays_within_what_the_file_allows"},
	{"tells no route", "decide.go", "t.obs.NoData || told.Generation == 0 || !newer", "true || !newer", "seed 0"},
	{"tells the route that was asked for", "decide.go", "range cloneRoute(t.obs.Served).Edges", "range cloneRoute(t.st.Route).Edges", "seed 2"},
	{"goes back to what one went back from", "blame.go", "t.st.Rollout.Back && !worse {", "false && !worse {", "scenario no_rollback_of_a_rollback"},
	{"holds trouble against a good release", "blame.go", "(harm || !t.proven(r)", "(true || harm || !t.proven(r)", "scenario trouble_on_the_way_back_makes_nothing_bad"},
	{"takes a blame away without evidence", "blame.go", "return r.Evidence != nil && r.Evidence.Requests > 0", "return true", "scenario forced_release_is_a_way_back_of_the_next"},
	{"never forgives what serves by force", "blame.go", "t.st.Bad[r.Stable].Forced && !r.Back {", "false {\n		_ = r", "scenario forced_release_is_a_way_back_of_the_next"},
	{"forces a rollback that made way", "waits.go", "Force: !r.Back || bad,", "Force: true || bad,", "scenario rollback_that_made_way_is_not_forced"},
	{"forgets what the autoscaler chose in a rollout", "scaling.go", "return max(before, seen)", "return seen", "seed 9"},
	{"measures a candidate by the size in the file", "scaling.go", "return max(n, min(t.st.Chosen[s.Name], s.Max))", "return n", "seed 9"},
	{"lets the autoscaler take replicas away in a rollout", "scaling.go", "scaling.Min, scaling.Frozen = t.size(s), true", "scaling.Min = t.size(s)", "seed 9"},
	{"takes the autoscaler from stable in a rollout", "scaling.go", "if t.stableSize(s) < t.size(s) {", "if t.st.Rollout != nil {", "seed 9"},
	{"gives a candidate its autoscaler at once", "scaling.go", "t.st.Phase != spillway.Promoting || ", "", "seed 9"},
	{"writes the size of what leaves", "desired.go", "Scaling: kept}", "Scaling: Scaling{Frozen: kept.Frozen && false}}", "scenario autoscaled_count_survives_a_canary"},
	{"begins an autoscaler with the smallest size", "scaling.go", "if ok && !s.Autoscaled() {", "if ok && false {", "scenario autoscaler_begins_with_the_fixed_size"},
	{"leads a track's calls to what is not ready", "lanes.go", "return ok && own != old &&", "return false && ok && own != old &&", "scenario promoted_track_keeps_its_peer_until_the_next_is_ready"},
	{"platform: calls ready what the gateway does not reach", "../sim/cluster.go", "if w.cluster == nil || g.Ready == 0 {", "if true {", "seed 44"},
	{"platform: acknowledges with the first instance of the gateway", "../sim/cluster.go", "all = all && one.has[key].generation == c.asked.Generation", "all = all && (i > 0 || one.has[key].generation == c.asked.Generation)", "seed 122"},
	{"platform: lets a write arrive when another server leads", "../sim/cluster.go", "c.late = nil // a", "_ = c.late // a", "scenario late_write_of_a_server_before"},
	{"scales beyond the file", "steps.go", "return min(max(n, s.Scale), s.Max)", "return n", "scenario size_stays_within_what_the_file_allows"},
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
	mutant, overlay := filepath.Join(dir, filepath.Base(file)), filepath.Join(dir, "overlay.json")
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
