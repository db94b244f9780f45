// Package kube holds the tests that need a cluster, and the scripts that start one: see README.md.
package kube
