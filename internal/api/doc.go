// Package api is how the outside reaches Spillway: the HTTP server on a unix socket and on TCP, who may
// use it, the streams of events and logs, the OpenAPI document, and the Go client of the command line.
//
// It knows routes, JSON, tokens and what an error is on the wire. It must not know how anything is done:
// it declares Engine, and the server of cmd/spillway implements it. It stores nothing but its tokens.
package api
