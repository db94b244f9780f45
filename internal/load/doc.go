// Package load sends a steady stream of requests to one URL and counts what comes back.
//
// It knows HTTP from the side of a user: connections, cookies, answers, the X-Spillway-Release header. It
// must not know apps, rollouts or the proxy: the demonstration and the end-to-end tests use it to see
// what users would have seen, so it takes nobody's word but that of the answers.
//
// It is strict. A request that was written and not answered is a failure, also when a browser would
// quietly repeat it. It is open-loop: with a rate, requests are due at fixed times, and their latency
// counts from when they were due, so a server that stalls cannot slow down its own measurement.
package load
