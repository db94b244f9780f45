# Spillway
#
#   make run         start it, deploy examples/castle and follow; Ctrl-C stops it all
#   make check       format, vet, staticcheck, unit tests with the race detector
#   make test        check, a short simulation and the end-to-end tests, on one machine and on a Kubernetes cluster
#   make test-kube   the part of it that runs on a cluster; ten minutes
#   make sim         millions of simulated rounds and the judge's tables in full, half an hour or so
#   make storm       whole storms on the proxy: swaps, hand-overs and changes under load, some minutes
#   make fuzz        every fuzz target for FUZZTIME (5m)
#   make kube-up     start a Kubernetes cluster for tests, as root; the first time builds it, a quarter of an hour or so
#   make kube-down   end it and leave nothing behind
#   make bench       measure the proxy beside nginx, HAProxy, Caddy and Traefik, an hour; writes bench/README.md
#   make bench-gate  fail when a request costs too much CPU beside httputil.ReverseProxy, two minutes
#   make bench-kube  measure the server on a cluster of its own with 1,000 apps and 5,000 pods, beside Argo Rollouts, as root
#
# It needs Go and, for the race detector, a C compiler. The binary itself is pure Go. What BENCH says goes
# to the benchmarks as flags: make bench BENCH='-rounds 1 -cases small,h2'.

export CGO_ENABLED = 0
export SIM_ROUNDS ?= 2000000
export SIM_ROLLOUTS ?= 2000
STORM ?= 20
FUZZTIME ?= 5m

.PHONY: help run check test test-here test-kube kube-programs needs sim storm fuzz kube-up kube-down bench bench-gate bench-kube

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
	cd bench && go vet ./... && go test ./...

# What the cluster runs is built beside the tests that need none.
test: needs
	$(MAKE) --no-print-directory -j2 test-here kube-programs
	test/kube/test.sh

test-here: check
	SIM_ROUNDS=50000 SIM_ROLLOUTS=400 go test -tags sim -count=1 -timeout 20m ./internal/sim
	go test -tags prometheus -count=1 ./internal/metrics
	STORM=$(STORM) go test -tags storm -run Storm -count=1 -timeout 20m ./internal/proxy
	cd test/e2e && go vet ./... && go test -count=1 -parallel 2 -timeout 30m ./... # most of it is waiting
	cd test/otlp && go vet ./... && go test -count=1 ./...

test-kube:
	test/kube/test.sh

kube-programs:
	test/kube/needs.sh
	nice -n 19 test/kube/build.sh

needs:
	test/e2e/needs.sh

sim:
	go test -tags sim -timeout 2h ./internal/...

fuzz:
	@go vet ./...
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

storm:
	go test -tags storm -run Storm -count=1 -timeout 1h -v ./internal/proxy

kube-up:
	test/kube/up.sh

kube-down:
	test/kube/down.sh

bench:
	cd bench && go run . $(BENCH)

bench-gate:
	cd bench && go run . -gate $(BENCH)

# Its own cluster has fake nodes; what only real pods need is stopped.
bench-kube: export SPILLWAY_KUBE_DIR = /tmp/spillway-bench-kube
bench-kube: export SPILLWAY_KUBE_NET = 10.97
bench-kube:
	KUBE_WITH=kwok test/kube/up.sh
	cd test/kube && sh -c '. ./cluster.sh; stop proxy; stop traefik; stop kubelet; stop dns'
	cd bench && go run . -kube $(SPILLWAY_KUBE_DIR)/admin.conf -kube-registry $(SPILLWAY_KUBE_NET).0.1:5000 $(BENCH); code=$$?; ../test/kube/down.sh; exit $$code
