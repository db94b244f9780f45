// Package e2etest is what the tests of the whole product share, those on one machine (test/e2e) and those on a cluster
// (test/kube/e2e), which are modules of their own: users under load, watchers who remember which release they met,
// examples that a test changes, the process of a server and what commands print.
//
// It knows what anybody sees from outside: processes, addresses, pages, files, an overview. It must not know with which
// flags a server is started, what is under it, or how its API is asked. Only tests import it.
package e2etest
