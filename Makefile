# Spillway
#
#   make run     start it, deploy examples/castle and follow; Ctrl-C stops it all
#   make check   format, vet, staticcheck, unit tests with the race detector
#   make test    check, a short simulation and the end-to-end tests
#   make sim     millions of simulated rounds and the judge's tables in full, half an hour or so
#   make storm   whole storms on the proxy: swaps, hand-overs and changes under load, some minutes
#   make bench   benchmarks against other proxies
#
# It needs Go and, for the race detector, a C compiler. The binary itself is pure Go.

export CGO_ENABLED = 0
export SIM_ROUNDS ?= 2000000
export SIM_ROLLOUTS ?= 2000
STORM ?= 20

.PHONY: help run check test needs sim storm bench

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

run:
	go run ./cmd/spillway up examples/castle

check:
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not formatted, run gofmt -w:" $$unformatted; exit 1; }
	go vet ./...
	go tool -modfile=tools/go.mod staticcheck ./...
	@command -v "$$(go env CC)" >/dev/null || { echo "the race detector needs a C compiler: install gcc, or set CC"; exit 1; }
	CGO_ENABLED=1 go test -race ./...

test: needs check
	SIM_ROUNDS=50000 SIM_ROLLOUTS=400 go test -tags sim -count=1 -timeout 20m ./internal/sim
	go test -tags prometheus -count=1 ./internal/metrics
	STORM=$(STORM) go test -tags storm -run Storm -count=1 -timeout 20m ./internal/proxy
	cd test/e2e && go vet ./... && go test -count=1 -timeout 30m ./...

needs:
	test/e2e/needs.sh

sim:
	go test -tags sim -timeout 2h ./internal/...

storm:
	go test -tags storm -run Storm -count=1 -timeout 1h -v ./internal/proxy

bench:
	@test -d bench || { echo "there is no bench directory"; exit 1; }
	cd bench && go test -run '^$$' -bench . ./...
