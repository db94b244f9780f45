// Package oci makes images of what was built, puts them into a registry, and pins images of others by digest.
//
// It knows directories, programs, layers and registries. It must not know releases, rollouts, who runs an image, or how
// a directory was built: it is given services and artefacts, and gives artefacts back whose Image is set.
//
// An image of ours is a base, by default nothing at all, and a layer with the artefact's directory at /app. The same
// artefact with the same settings has the same digest, whenever and wherever it is made.
package oci
