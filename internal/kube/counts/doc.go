// Package counts judges a candidate behind a gateway that is not Spillway's, from the counters that the gateway
// shows of itself.
//
// It knows the metrics of gateways, how to read them (each instance of the gateway by HTTP, or all of them from a
// Prometheus), and how what they grew by becomes evidence: every two seconds one judge.Batch per public service.
// It must not know how routes get to the gateway, nor what follows from a verdict.
//
// Three silences are told apart, because they are three different problems:
//
//   - The source is down: no instance, or no Prometheus, can be asked. Nothing is known, and nobody is judged.
//   - No series: it answers, and knows none of the app's backends. Its metrics are switched off, or it is not this
//     gateway that serves the app, or the app has not had a request since the gateway started.
//   - No traffic: stable has series and the candidate has none, or they stand still.
//
// Instances are counted each by itself. As long as no more than half of them cannot be read, the rest is judged and the
// evidence says so; beyond that nobody is judged. An address behind which several processes answer by turns is not read.
//
// A candidate that fails every request has no series of successes. That is none of the three: its failures are
// counted, and what is not there is 0.
//
// What is not known here and is in Spillway's own proxy: who asked. So the gateway has to deal requests, not users;
// with sticky sessions a few users with many errors pass for evidence. Requests that a header leads to the candidate
// are told apart by Traefik, which counts by rule; with the others they are counted with those that were dealt, and
// when they are too many to be chance, the candidate is compared at the share of the requests that it really has.
// Latency is judged by the histogram of the gateway, so only as finely as its bounds are; read from a Prometheus, and
// with Nginx, it is not judged, and the evidence says so.
package counts
