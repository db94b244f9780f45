package judge

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// version is the format of State that this package writes and reads.
	version = 1
	// alpha is the chance, over a whole trial, that a candidate that is no worse is called harmful.
	alpha = 0.01
	// beta is the chance that a candidate that is worse by the margin is certified.
	beta = 0.05
	// leastFailures keeps the verdict credible: at a weight of 1 % two failures can be proof for the
	// arithmetic, and no proof for the person who reads it.
	leastFailures = 3
	// leastSlow is the same for answers that are slow: that happens to good releases too.
	leastSlow = 5
)

// The parts of the joint evidence in a trial with gates on latency.
const (
	partErrors  = 0.55 // the comparison of errors; without latency it is partFromStart + partLater
	partLatency = 0.35 // all gates on latency, averaged
)

// State is all evidence of one trial. It is a plain value: copying it copies everything, and JSON keeps
// all of it, float64 exactly. The zero value belongs to no trial; New makes a usable one. Its fields
// are exported for storage only: nobody but this package changes them.
type State struct {
	Version    int        `json:"version"`         // of this format; 1
	Trial      int64      `json:"trial"`           // spillway.Trial.ID
	Candidate  Tally      `json:"candidate"`       // every answer of the candidate
	Stable     Tally      `json:"stable"`          // every answer of stable during the trial
	Sample     Tally      `json:"sample"`          // of Candidate: requests that came by weight, not by choice
	Baseline   Tally      `json:"baseline"`        // of Stable: the same
	Comparison Comparison `json:"comparison"`      // candidate against stable
	Gate       Gate       `json:"gate"`            // candidate against the limit
	Peak       float64    `json:"peak"`            // highest that the joint evidence against the candidate ever was
	Cause      Cause      `json:"cause,omitempty"` // why the candidate is harmful; "" = it is not; never changes once set

	Thresholds [5]time.Duration `json:"thresholds,omitzero"` // stable's p50, p75, p90, p95, p99; zero = not known yet, so nothing is compared
	Latency    Latency          `json:"latency,omitzero"`    // candidate against the gates on latency
	Users      int64            `json:"users,omitempty"`     // seen by the trial, on either side; told by Among, for people
}

// Tally counts answers. Failures <= Requests.
type Tally struct {
	Requests int64 `json:"requests"`
	Failures int64 `json:"failures"`
}

// add returns the tally after one more answer.
func (c Tally) add(failed bool) Tally {
	c.Requests++
	if failed {
		c.Failures++
	}
	return c
}

// Cause is the rule by which a candidate is harmful.
type Cause string

// The causes. The zero value is a candidate that is not harmful.
const (
	WorseThanStable Cause = "worse-than-stable" // it fails more often than stable
	AboveLimit      Cause = "above-limit"       // it fails more often than the absolute limit
	BudgetSpent     Cause = "budget-spent"      // it spent its budget and failed more than half of its requests
	// SlowerThanStable is a candidate that breaks a gate on latency, be it relative to stable or absolute.
	SlowerThanStable Cause = "slower-than-stable"
)

// Answer is one judged request.
type Answer struct {
	Candidate bool // it was given to the candidate
	// Weight is the candidate's weight when the request was assigned at random, whichever release it
	// then went to. 0 = it was not assigned at random (a header or cookie chose, only one side was
	// there, the admission limit sent it elsewhere): it counts, but it compares nothing.
	Weight spillway.Share
	Failed bool // 5xx, reset, no connection, timeout
	Repeat bool // the sticky user behind it has had an error counted before, in this trial: it counts, but is no evidence
	// Took is the time until the first byte of the answer; 0 = it says nothing about latency: the
	// release was still warming up, or it failed without an answer.
	Took time.Duration
	// SlowRepeat are the terms, as in State.Slow, that earlier answers to this user were slower than; also
	// with a quick answer, which then is no evidence for the candidate either.
	SlowRepeat uint64
}

// dealt reports whether the request was given to one of the two at random.
func (a *Answer) dealt() bool { return a.Weight > 0 && a.Weight < spillway.Whole }

// New starts a trial.
func New(trial int64) State {
	return State{Version: version, Trial: trial, Comparison: newComparison(), Gate: newGate()}
}

// Observe returns the state after one answer. A good answer that is not slow only counts; the arithmetic
// is done at the others. None allocates.
func (s State) Observe(a Answer, t spillway.Trial) State {
	s.observe(&a, &t)
	return s
}

// observe is Observe in place; the state is large, and this way it is copied little.
func (s *State) observe(a *Answer, t *spillway.Trial) {
	dealt := a.dealt()
	if a.Candidate {
		s.Candidate = s.Candidate.add(a.Failed)
		if a.Weight > 0 {
			s.Sample = s.Sample.add(a.Failed)
		}
		if !dealt && !a.Repeat {
			s.Gate = s.Gate.observe(a.Failed, limit(t))
		}
	} else {
		s.Stable = s.Stable.add(a.Failed)
		if a.Weight > 0 {
			s.Baseline = s.Baseline.add(a.Failed)
		}
	}
	slow := s.observeLatency(a, t)
	if a.Failed && dealt && !a.Repeat {
		s.Comparison = s.Comparison.observe(a.Candidate, a.Weight, tolerance(t))
	}
	if a.Failed || slow {
		s.trip(t)
	}
}

// trip sets Peak and, when a rule holds for the first time, Cause. Ville's inequality speaks of "ever",
// so a rule that held once is never taken back.
func (s *State) trip(t *spillway.Trial) {
	worse, broken, slow := s.parts(t)
	joint := worse + broken + slow
	s.Peak = max(s.Peak, joint)
	switch {
	case s.Cause != "":
	case joint >= 1/alpha && slow > max(worse, broken):
		if s.Latency.slowest(s.Latency.enrol(t)).Failures >= leastSlow {
			s.Cause = SlowerThanStable
		}
	case joint >= 1/alpha && s.Candidate.Failures >= leastFailures:
		s.Cause = WorseThanStable
		if broken > worse {
			s.Cause = AboveLimit
		}
	}
	if s.Cause == "" && s.spent(t) {
		s.Cause = BudgetSpent
	}
}

// parts are the three that the joint evidence is the sum of, each with its weight.
func (s *State) parts(t *spillway.Trial) (worse, broken, slow float64) {
	worse, broken = s.Comparison.value(tolerance(t)), s.Gate.value()
	places := s.Latency.enrol(t)
	if places == 0 {
		return worse, broken, 0
	}
	return worse * partErrors / (partFromStart + partLater), broken, s.Latency.value(places) * partLatency
}

// spent reports whether the budget is used up by a release that mostly fails.
//
// The number of failures alone would not do: an identical release of a busy service with an ordinary
// error rate of 0.1 % fails 20 requests out of 20,000 and would be rolled back for it. So the raw
// count is a limit only for a release that fails more than half of its requests; one that fails fewer
// is caught by the tests, in the number of requests that its badness takes. This is a promise about
// harm and not a test: alpha does not cover it, and when everything is down on both sides the
// candidate is rolled back once it has used its budget. A budget of 1 or 2 is used up by chance.
func (s *State) spent(t *spillway.Trial) bool {
	return s.Candidate.Failures >= budget(t) && 2*s.Candidate.Failures > s.Candidate.Requests
}

// Admit reports whether the candidate may be given another request while inFlight of its requests are
// unanswered: inFlight + failures < budget + successes. So a release that fails every request costs at
// most t.Budget requests, however many come at once before the first is answered; every good answer
// makes room for one more. A harmful candidate is admitted nothing.
func (s *State) Admit(t spillway.Trial, inFlight int) bool {
	successes := s.Candidate.Requests - s.Candidate.Failures
	return s.Cause == "" && int64(inFlight)+s.Candidate.Failures-successes < budget(&t)
}

// UnmarshalJSON reads what encoding/json writes of a State, of this version only.
func (s *State) UnmarshalJSON(text []byte) error {
	type plain State // without this method
	var p plain
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("read the evidence of a trial: %w", err)
	}
	if p.Version != version {
		return fmt.Errorf("read the evidence of trial %d: its format is version %d and this program knows version %d; use the program that wrote it: %w",
			p.Trial, p.Version, version, spillway.ErrInvalid)
	}
	*s = State(p)
	return nil
}

// Among returns the state with the number of users that the trial has seen, which the texts about a
// budget in users name.
func (s State) Among(users int64) State {
	s.Users = users
	return s
}

// budget is the trial's budget; 0 stands for the default.
func budget(t *spillway.Trial) int64 {
	if t.Budget <= 0 {
		return spillway.DefaultBudget
	}
	return int64(t.Budget)
}

// tolerance is how many times stable's error rate the candidate's may be; 0 stands for 1.
func tolerance(t *spillway.Trial) float64 {
	if t.Tolerance <= 0 {
		return 1
	}
	return float64(t.Tolerance) / 100
}

// limit is the error rate above which a candidate is harmful without comparison; 0 stands for one half.
func limit(t *spillway.Trial) float64 {
	if t.Limit <= 0 {
		return 0.5
	}
	return fraction(t.Limit)
}

// fraction is a share as a number from 0 to 1.
func fraction(s spillway.Share) float64 { return float64(s) / float64(spillway.Whole) }
