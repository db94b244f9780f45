// Package e2e holds the tests of the whole product on a cluster: the real binary as server and command line, pods
// that it makes on real nodes, and users who come in by a real gateway that is not Spillway's.
//
//	go test -tags kube ./e2e                          what make test runs, some minutes
//	go test -tags kube -run TestKilled ./e2e          one of it
//	SPILLWAY_KUBE_MOVES=30 SPILLWAY_KUBE_KILLS=30 go test -tags kube -timeout 1h ./e2e     as many as the promises name
//
// The cluster is the one of make kube-up, or that of the variables that cluster_test.go reads. Each test has a
// namespace of its own there and leaves nothing in it.
//
// The harness, in the order of reading: main_test.go builds the binary and installs the resources; cluster_test.go is
// the cluster and a namespace in it; installation_test.go starts and kills servers, command_test.go runs commands;
// door_test.go is a way to the API server or to the metrics that a test can shut; app_test.go is the example
// that most tests deploy; traffic_test.go is load that counts what users see. What the tests of one machine need too is in
// internal/e2etest.
package e2e
