// Package rollout decides how an app moves from one release to the next, and back.
//
// It knows releases, steps, weights, capacity, verdicts and the order in which they may change. It must
// not know processes, pods, HTTP, metrics queries, files, clocks or logs: it is pure, and a test over
// its syntax tree enforces that. Everything it believes about the world is in the Observation.
package rollout
