module github.com/spillway-dev/spillway/bench

go 1.26.0

require (
	github.com/spillway-dev/spillway v0.0.0
	golang.org/x/sys v0.49.0
)

replace github.com/spillway-dev/spillway => ..
