// Package http1 reads and writes HTTP/1 messages (RFC 9112) strictly: what two programs could read in two
// ways is refused, so that nothing can be smuggled past a proxy that uses it.
//
// It knows bytes, header fields and the framing of bodies. It must not know routes, users or releases, and
// it opens no connection.
package http1
