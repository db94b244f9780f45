// Package otlp holds the test that the spans of the proxy are understood by the receiver of the OpenTelemetry
// project itself. It is a module of its own, so that nobody else has to download what that needs.
package otlp
