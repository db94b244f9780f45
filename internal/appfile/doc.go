// Package appfile turns the text of an app file (spillway.yaml) into a spillway.App and reports every
// mistake in it at once, with line, column, path, problem and what to write instead.
//
// It knows YAML, the keys of the file, their bounds and defaults. It must not know what a release does
// with them: no processes, no network and no files, apart from Detect and the names of time zones.
//
// One table (keys.go) says which keys there are and what each may hold. Parse checks a file against it
// and Schema prints it, so that an editor and Spillway cannot disagree about the shape of a file. What
// one value says about another (two services with one host, a circle of needs) only Parse checks.
package appfile
