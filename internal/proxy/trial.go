package proxy

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// maxSeen bounds the users that are remembered to have had an error: 800 kB at most.
const maxSeen = 100_000

// trial is the evidence about one candidate while it is being tried.
type trial struct {
	// harmful is the tripwire: set once, never taken back, read by every request. It takes the
	// candidate out of each edge that has a stable arm.
	harmful atomic.Bool

	mu         sync.Mutex
	terms      spillway.Trial // of the newest table, without Memory; Budget is what the users seen so far allow
	state      judge.State
	seen       map[uint64]struct{} // users that had an error, on either side
	users      headcount           // who was seen, on either side, if the budget is a share of them
	pace       pace
	unanswered int              // requests at the candidate without an outcome
	verdict    spillway.Verdict // the last one noticed
	at         time.Time        // since when
	look       int64            // when the candidate has had so many answers, see whether the verdict changed
	heir       *heir            // told every answer after a hand-over has begun
}

// memory is a trial as it is stored: in the snapshot, and for safe keeping in Report.Memory.
type memory struct {
	Version int              `json:"version"` // 1
	Trial   int64            `json:"trial"`
	State   judge.State      `json:"state"`
	Seen    []byte           `json:"seen,omitempty"` // hashes of 8 bytes, little endian
	Users   []byte           `json:"users,omitempty"`
	Slow    []byte           `json:"slow,omitempty"` // see pace.stored
	Full    bool             `json:"full,omitempty"` // see pace
	First   time.Time        `json:"first,omitzero"` // see pace
	Harmful bool             `json:"harmful,omitempty"`
	Verdict spillway.Verdict `json:"verdict"`
	At      time.Time        `json:"at,omitzero"`
}

const memoryVersion = 1

// newTrial starts from the memory in terms if it is of this trial, else from nothing. A memory that
// cannot be read is given back as error together with a usable trial.
func newTrial(terms spillway.Trial) (*trial, error) {
	t := &trial{terms: terms, state: judge.New(terms.ID), seen: map[uint64]struct{}{}, verdict: spillway.NoTraffic}
	t.terms.Memory = nil
	t.spend()
	if len(terms.Memory) == 0 {
		return t, nil
	}
	var m memory
	if err := json.Unmarshal(terms.Memory, &m); err != nil {
		return t, fmt.Errorf("memory of trial %d: %w", terms.ID, err)
	}
	if m.Version != memoryVersion {
		return t, fmt.Errorf("memory of trial %d has version %d, this program knows %d: %w", terms.ID, m.Version, memoryVersion, spillway.ErrInvalid)
	}
	if m.Trial != terms.ID {
		return t, nil
	}
	t.state, t.verdict, t.at = m.State, m.Verdict, m.At
	t.harmful.Store(m.Harmful)
	t.users, t.pace = headcountOf(m.Users), pace{first: m.First, full: m.Full, slow: slowOf(m.Slow)}
	t.spend()
	for b := m.Seen; len(b) >= 8; b = b[8:] {
		t.seen[binary.LittleEndian.Uint64(b)] = struct{}{}
	}
	return t, nil
}

// renew takes over the terms of a newer table.
func (t *trial) renew(terms spillway.Trial) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.terms = terms
	t.terms.Memory = nil
	t.spend()
	t.look = 0
}

// memory is the whole state, stored. With an heir, the heir is told every answer that is not in it.
func (t *trial) memory(h *heir) json.RawMessage {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h != nil {
		t.heir = h
	}
	m := memory{Version: memoryVersion, Trial: t.terms.ID, State: t.state, Harmful: t.harmful.Load(), Verdict: t.verdict, At: t.at}
	m.Users, m.Slow, m.Full, m.First = t.users.bytes(), t.pace.stored(), t.pace.full, t.pace.first
	for key := range t.seen {
		m.Seen = binary.LittleEndian.AppendUint64(m.Seen, key)
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // numbers and strings always marshal: judge keeps its floats finite
	}
	return text
}

// disown stops telling an heir that did not come to life.
func (t *trial) disown() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heir = nil
}

// evidence is what the trial shows now. Tripped is left to the caller, who knows the edges.
func (t *trial) evidence() spillway.Evidence {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.weigh()
}

// weigh makes the evidence and notices a change of the verdict. t.mu is held.
func (t *trial) weigh() spillway.Evidence {
	e := t.state.Evidence(t.terms)
	if t.harmful.Load() {
		e.Verdict = spillway.Harmful
	}
	if e.Verdict != t.verdict || t.at.IsZero() {
		t.verdict, t.at = e.Verdict, time.Now()
	}
	t.look = e.Requests + max(1, e.Needs/4)
	if e.Verdict == spillway.Certified { // good answers change little about that
		t.look = e.Requests + max(1, e.Requests/16)
	}
	e.At = t.at
	return e
}

// admit gives the candidate one more request unless that could overspend the budget.
func (t *trial) admit() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.state.Admit(t.terms, t.unanswered) {
		return false
	}
	t.unanswered++
	return true
}

// enter gives the candidate one more request when there is nobody else to give it to.
func (t *trial) enter() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unanswered++
}

// leave takes back a request that has no outcome: its client went away.
func (t *trial) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unanswered--
}

// news is what an answer changed.
type news struct {
	failed  bool
	verdict bool // there is another verdict
	tripped bool // it is harmful, for the first time
	because string
}

// outcome is one judged answer, as it is also told to an heir.
type outcome struct {
	Candidate bool           `json:"candidate,omitempty"`
	Weight    spillway.Share `json:"weight,omitempty"`
	Failed    bool           `json:"failed,omitempty"`
	Key       uint64         `json:"key,omitempty"`   // of the unit; 0 = nobody in particular
	Known     bool           `json:"known,omitempty"` // Key is of a user who said it: not of a bucket, nor made for this request
	Took      time.Duration  `json:"took,omitempty"`  // until the first byte of the answer; 0 = there was none
}

// observe counts one answer. entered: it was counted in by admit or enter.
func (t *trial) observe(app spillway.Ref, o outcome, entered bool) news {
	t.mu.Lock()
	defer t.mu.Unlock()
	if entered {
		t.unanswered--
	}
	if t.heir != nil {
		t.heir.tell(message{App: app, Trial: t.terms.ID, Outcome: &o})
	}
	t.count(o)
	took, slow := t.timing(o)
	cause := t.state.Cause
	t.state = t.state.Observe(judge.Answer{
		Candidate: o.Candidate, Weight: o.Weight, Failed: o.Failed, Repeat: o.Failed && t.repeated(o.Key), Took: took, SlowRepeat: slow,
	}, t.terms)
	n := news{failed: o.Failed}
	if !o.Failed && t.state.Cause == cause && (!o.Candidate || t.state.Candidate.Requests < t.look) {
		return n // a verdict changes with failures, with slow answers, and once certified
	}
	before := t.verdict
	e := t.weigh()
	n.verdict, n.because = e.Verdict != before, e.Reason
	if e.Verdict == spillway.Harmful {
		n.tripped = t.harmful.CompareAndSwap(false, true)
	}
	return n
}

// repeated remembers that a unit had an error, and reports whether it had one before. When the set is
// full, every error counts as a repeated one: no evidence is better than false evidence.
func (t *trial) repeated(key uint64) bool {
	if key == 0 {
		return false
	}
	if _, ok := t.seen[key]; ok {
		return true
	}
	if len(t.seen) >= maxSeen {
		return true
	}
	t.seen[key] = struct{}{}
	return false
}

// lease is one request as its trial sees it: it is settled or dropped, once. The zero value is a
// request that nobody judges.
type lease struct {
	app     *app
	trial   *trial
	outcome outcome
}

// settle tells the trial how the request ended.
func (l *lease) settle(failed bool) {
	t := l.trial
	if t == nil {
		return
	}
	l.trial = nil
	l.outcome.Failed = failed
	l.app.plane.react(l.app, t.observe(l.app.ref, l.outcome, l.outcome.Candidate))
}

// drop forgets a request that says nothing about the release.
func (l *lease) drop() {
	if l.trial != nil && l.outcome.Candidate {
		l.trial.leave()
	}
	l.trial = nil
}
