// Package metrics asks the gates of rollouts whose answer lies outside Spillway: a query to a Prometheus, a
// URL, a command.
//
// It knows how to ask and how to tell an answer from silence. It must not know what follows from an
// answer: that is the engine's, which gets each as a rollout.Reading. The difference between "no" and "nobody
// could say" is the point of the package: a broken gate takes a release back, a source that is down does
// not.
//
// In the text of a query and in a URL, {{release}}, {{stable}}, {{app}}, {{environment}} and {{track}} stand
// for what a command is given as SPILLWAY_RELEASE, SPILLWAY_STABLE, SPILLWAY_APP, SPILLWAY_ENVIRONMENT and
// SPILLWAY_TRACK: the candidate, the release that it is compared with, and where.
package metrics
