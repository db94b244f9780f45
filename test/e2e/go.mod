module github.com/spillway-dev/spillway/test/e2e

go 1.26.0

require github.com/spillway-dev/spillway v0.0.0

replace github.com/spillway-dev/spillway => ../..
