// Package kube runs releases on Kubernetes and remembers them there: it is the Platform and the Store of a
// cluster, beside local and store for one machine.
//
// What runs is native: a Deployment per group, and a Service where a gateway leads to it, a Service per edge between
// tiers, HTTPRoutes per public edge. It knows releases as they are, and what the cluster says of them; it must not know how rollouts
// are decided.
package kube
