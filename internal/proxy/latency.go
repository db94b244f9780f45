package proxy

import (
	"encoding/binary"
	"time"
)

const (
	// maxSlow bounds the users that are remembered to have had a slow answer: 300 kB stored at most.
	maxSlow = 50_000
	// enoughTimes of stable's are taken for its usual ones.
	enoughTimes = 100
)

// quantiles are those of stable's times that judge compares with, in percent.
var quantiles = [...]uint64{50, 75, 90, 95, 99}

// pace is what a trial keeps about latency, beside the evidence. The zero value knows nothing.
type pace struct {
	first time.Time         // when the candidate answered for the first time
	slow  map[uint32]uint64 // terms, as of judge.State.Slow, that a user has had a slow answer in, by half of the key
	full  bool              // slow is, so there is no more evidence about latency: which answers are first ones is not known
	times [classes]uint64   // stable's, while the thresholds are not fixed
	n     uint64            // how many these are
}

// timing gives what an answer says about latency: nothing in the time when the candidate warms up, on
// both sides. t.mu is held.
func (t *trial) timing(o outcome) (took time.Duration, repeat uint64) {
	if len(t.terms.Latency) == 0 {
		return 0, 0
	}
	now := time.Now()
	if o.Candidate && t.pace.first.IsZero() {
		t.pace.first = now
	}
	switch {
	case o.Took <= 0:
		return 0, 0
	case !o.Candidate && t.state.Thresholds == [len(quantiles)]time.Duration{}:
		t.learn(o.Took)
		return 0, 0
	case t.pace.full || t.warming(now):
		return 0, 0
	}
	slow := t.state.Slow(o.Candidate, o.Took, t.terms)
	if o.Key == 0 {
		return o.Took, 0
	}
	key := uint32(o.Key)
	repeat, known := t.pace.slow[key]
	if slow == 0 { // of someone who had a slow one before it is no evidence either
		return o.Took, repeat
	}
	if !known && len(t.pace.slow) >= maxSlow {
		t.pace.full = true
		return 0, 0
	}
	if t.pace.slow == nil {
		t.pace.slow = map[uint32]uint64{}
	}
	t.pace.slow[key] = repeat | slow
	return o.Took, repeat
}

// warming reports whether the candidate may still be slow. t.mu is held.
func (t *trial) warming(now time.Time) bool {
	warmup := time.Duration(t.terms.Warmup)
	return warmup > 0 && (t.pace.first.IsZero() || now.Before(t.pace.first.Add(warmup)))
}

// learn takes one of stable's times for a usual one, and fixes the thresholds when these are enough.
// t.mu is held.
func (t *trial) learn(took time.Duration) {
	t.pace.times[class(took)]++
	t.pace.n++
	t.fix(&t.pace.times, t.pace.n)
}

// usual fixes the thresholds by n times of stable's from before the trial, if these are enough.
func (t *trial) usual(times *[classes]uint64, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fix(times, n)
}

func (t *trial) fix(times *[classes]uint64, n uint64) {
	if n < enoughTimes {
		return
	}
	var thresholds [len(quantiles)]time.Duration
	for i, q := range quantiles {
		thresholds[i] = time.Duration(percentile(times, n, q)) * time.Microsecond
	}
	t.state = t.state.Fix(thresholds)
}

// usualTimes are those of the last minute of all that the candidate of the app is compared with: n in
// all. plane.mu is held.
func (a *app) usualTimes(now time.Time) (times [classes]uint64, n uint64) {
	seen := map[string]bool{}
	for _, spec := range a.table.Route.Edges {
		e := newEdge(a, spec, nil)
		for _, arm := range e.arms {
			if !e.judged || !arm.baseline || seen[arm.name] {
				continue
			}
			seen[arm.name] = true
			more, k := arm.tally.minuteOf(now)
			for c := range times {
				times[c] += more[c]
			}
			n += k
		}
	}
	return times, n
}

// stored is who had slow answers, as it is stored: 4 bytes of the key, then the terms in 1 to 10.
func (p *pace) stored() (text []byte) {
	for key, terms := range p.slow {
		text = binary.LittleEndian.AppendUint32(text, key)
		text = binary.AppendUvarint(text, terms)
	}
	return text
}

// slowOf reads what stored made, as far as it can be read.
func slowOf(text []byte) map[uint32]uint64 {
	slow := map[uint32]uint64{}
	for len(text) > 4 {
		key := binary.LittleEndian.Uint32(text)
		terms, n := binary.Uvarint(text[4:])
		if n <= 0 {
			break
		}
		slow[key] = terms
		text = text[4+n:]
	}
	return slow
}
