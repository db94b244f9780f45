// Package e2etest is what the tests of the whole product share, those on one machine (test/e2e) and those on a cluster
// (test/kube/e2e), which are modules of their own: users under load, watchers who remember which release they met, and
// examples that a test changes.
//
// It knows what anybody sees from outside: addresses, pages, files, the output of commands. It must not know how an
// installation is started or what is under it. Only tests import it.
package e2etest
