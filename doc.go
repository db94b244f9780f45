// Package spillway is the vocabulary of Spillway: the words that the app file, the command line, the
// API, the store and the code share, with their units and bounds.
//
// It knows names, shapes, validation of single values and small pure helpers. It must not know I/O,
// clocks, goroutines, YAML, HTTP or any platform, and it imports the standard library only. Every
// other package may import it; it imports none of them.
//
// Ownership: values passed to or returned from a function of this module are not shared afterwards
// unless the function says so; types with slices or maps have a Clone method where the pure packages
// need one.
package spillway
