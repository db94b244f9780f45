// Package sim runs the real loop on a simulated world: virtual time, replicas, a data plane with traffic,
// and faults at every place where a real world has them.
//
// A run is a list of actions ("deploy 2", "tick 5s", "once crash=saved", "kill www.2"), drawn from a seed or
// read from a scenario file. After every round the invariants of the design are checked; the first that
// breaks is reported with the actions that led there, which can be saved as a scenario and replayed.
//
// It knows the engine's contract and nothing of real platforms: it is the second implementation of
// Platform and Store, and the first that every new behaviour of a rollout has to pass.
package sim
