// Package store remembers everything that must survive a crash: the status of each app, its releases,
// what was asked of it, and its history. It is one SQLite file in the state directory.
//
// It knows tables, transactions and the order in which versions and numbers rise. It must not know what
// a status means, when to decide or who asks: it hands back what it was given. It implements the Store
// of package reconcile, and adds the reading that people need.
//
// Every change is one transaction that is on the disk when the call returns (WAL with full
// synchronisation), so a process that dies on any line leaves either the old state or the new one.
package store
