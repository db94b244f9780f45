// Package state remembers everything of an app in the cluster that it runs in: it is the Store of Kubernetes. Status,
// open intents and the newest events are the status of one App resource, so that one write is one transaction; each
// release is a Release resource, which never changes.
//
// It knows resources, who writes which part of them, and the order in which versions and numbers rise. It must not
// know what a status means, when to decide or who asks.
//
// # Transactions
//
// Every write of the status carries the resourceVersion of what it was made from. When somebody else was first it is
// made again from what is there then, and Save gives up with ErrStale when the memory has another version. Apps may be
// read from a cache: the store never goes back behind what it has read or written itself.
//
// A release is two writes, the Release and then the App that lists its number. A Release that no App lists does not
// count: a crash in between leaves one, the next release gets the next free number, and Prune removes it. Only
// who created the Release of a number ever lists it, so a number means one release for ever, also in a gap.
//
// # The spec
//
// The spec of an App is its app file, and it is one value (an atomic map): who applies it owns all of it.
//
// "kubectl apply" is a deploy. Kubernetes counts changes of a spec in metadata.generation; Asked gives the file of a
// generation that is not status.observedGeneration, and the server deploys it as it deploys any file. Answer says that
// it did, or which mistakes the file has: condition Accepted. The same spec applied again is no new generation, so it
// is no new release. So a spec that was refused for something that is not in it, such as an image that is not there yet,
// is asked for again until it is a release or another one: see LookAgain.
//
// A deploy by the command line writes the spec too, after the release is stored, by server-side apply and never by
// force. It is not written when it says the same already, so a manager keeps what it owns. When another manager
// (Argo CD, Flux, kubectl apply) owns the spec and it says something else, the deploy is refused with ErrConflict
// before anything is stored: the next sync would undo it. A manager that forces takes the spec over from Spillway; one
// that does not is told of a conflict with the manager "spillway". A deploy to a track leaves the spec alone: it is
// the file of the stable release.
//
// A spec is JSON, so a text that YAML takes for a number is that number in it: MODE: 010 of an env is 8, RATE: 1.50 is
// 1.5, and the key n is false, as kubectl has it too. Who means the text writes it in quotes. A release keeps the text
// of its file and runs with that.
//
// Between the release and the spec a crash leaves the older spec, of a generation that was looked at: nothing acts.
//
// # The end
//
// An App whose release was stored has the finalizer spillway.dev/app. "kubectl delete app" is the verb destroy: Asked
// says so, and the finalizer goes with Remove, when nothing of the app runs any more. A namespace with an App in it does
// not go while no server is there to do that: whoever removes the server calls Free, and a server that comes Hold.
package state
