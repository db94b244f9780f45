// Package v1alpha1 is what Spillway keeps in a cluster: the resources App and Release of the group spillway.dev,
// and their definitions.
//
// The spec of an App is the app file, the same document as on one machine, so that
//
//	apiVersion: spillway.dev/v1alpha1
//	kind: App
//	metadata: {name: castle}
//	spec:
//	  app: castle
//	  services: {www: {…}}
//
// is a deploy. It is one value for everybody who writes it: whoever applies a spec applies all of it. An App
// named castle.staging is the environment staging of the same file. The spec of a Release is a spillway.Release
// and never changes.
//
// The package knows shapes. It must not know what a spec means, nor who writes what when: that is package state.
package v1alpha1
