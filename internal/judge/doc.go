// Package judge decides from the answers of two releases whether the newer one is worse.
//
// It knows sequential tests: what one more answer means, when the evidence is enough, and how to say
// so in a sentence. All of it can be asked after every answer, at any weight, however often, without
// spoiling the error rates that it promises. It must not know how requests are routed, where counts
// are kept, clocks, randomness, I/O, goroutines or logs: it is pure, and a test over its syntax tree
// enforces that.
//
// A candidate is harmful when any of these holds; each is checked at every failed or slow answer and
// holds for ever once it has held:
//
//   - It fails more often than stable, among the requests that were dealt to the two at random
//     (comparison.go).
//   - It fails more often than the absolute limit, among the requests that were not (gate.go).
//   - It is slower than a gate on latency allows: more of its answers than of stable's are slower than
//     the times that stable's usually stay under, or too many are slower than a limit (latency.go).
//   - It has spent its budget and failed more than half of its requests (State.spent).
//
// The first three are one test. Each is an e-process: a number that starts at 1 or below and that, as
// long as the candidate is fine, cannot be expected to grow. Their weighted mean is an e-process again,
// and by Ville's inequality the chance that it EVER reaches 1/alpha for a fine candidate is at most
// alpha, at any stopping time. Averaging keeps the total at alpha = 1 % under any dependence of
// them, and costs each of them the logarithm of its part: the comparison has 90 % of the weight and
// takes 1 to 6 % more requests than alone (measured), the gate 10 % and takes about three failures
// more. Two separate tests at alpha would promise 2 %; two at alpha/2 would cost the comparison, which
// does nearly all of the work, several times as much as this does. The budget is a promise about harm,
// not a test (State.spent).
//
// With gates on latency the weights are 55 % for the comparison of errors, 35 % for latency, the mean of
// all gates, and 10 % for the gate on errors. Beside them a verdict about errors takes up to 15 % more
// requests than without, one request more for a dead release at a weight of 50 %; a verdict about latency
// takes 15 to 22 % more than with latency alone (measured: latency_sim_test.go). Trials without gates on
// latency pay nothing.
//
// Where only counters are known and not each answer, as behind a gateway that is not Spillway's, the same is
// done batch by batch (batch.go).
//
// Sources: Ville 1939; Lindon and Malek, "Anytime-valid inference for multinomial count data",
// NeurIPS 2022 (which arm did this error hit?); Wald and Wolfowitz 1948 (the bound that the tests of
// this package measure against).
package judge
