// Package pipeline turns a directory of source into artefacts that replicas can run.
//
// It knows archives, digests of directories, git's list of files, build commands and where artefacts
// are kept. It must not know releases, rollouts, the app file's text or who runs an artefact.
//
// The side of the client is Pack. The side of the server is a Builder: Unpack, SourceDigest, Build,
// Exists, Prune. What a service is built from is its scope: its build directory, or the whole source
// when the build needs more. A build happens in a copy that holds the scope and nothing else, and the
// scope is what SourceDigest covers, so no build can depend on what its digest does not know.
package pipeline
