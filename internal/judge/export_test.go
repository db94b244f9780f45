package judge

import "github.com/spillway-dev/spillway"

// ObserveInPlace is State.Observe without its copies, for tests that ask millions of requests.
func (s *State) ObserveInPlace(a *Answer, t *spillway.Trial) { s.observe(a, t) }

// LatencyAlone is the evidence of the gates on latency without that of errors, at full weight.
func (s *State) LatencyAlone(t *spillway.Trial) float64 { return s.Latency.value(s.Latency.enrol(t)) }
