// Package e2e holds the tests of the whole product: the real binary, with real processes, real signals and
// real load, through the command line and the addresses that users have.
//
//	go test ./...                 all of it, in about 15 minutes on 2 cores
//	go test -run TestKill ./...   one of it
//
// needs.sh installs the foreign programs that some tests run. A test that misses one of them fails and says
// how to get it.
//
// The harness, in the order of reading: main_test.go builds the binary; installation_test.go starts, kills
// and stops one installation of it, and checks that it leaves no process behind; app_test.go writes app
// files; traffic_test.go is load that counts what users see; crowd_test.go is users who are told apart, and
// watchers who see in which order releases come; site_test.go is the program that most apps run. What a
// cluster's tests need too is in internal/e2etest.
package e2e
