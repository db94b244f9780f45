// Package reconcile is the one loop: load, observe, decide, save, apply, wake.
//
// It knows the order of these and what happens when one of them fails. It must not know how anything
// is done: it declares Platform (where releases run) and Store (what is remembered), and the local
// machine, Kubernetes and the simulator implement them.
package reconcile
