#!/bin/sh
# Runs the tests that need a cluster: on the one that SPILLWAY_TEST_KUBECONFIG names or make kube-up has started, else on
# one of their own, which is there for them alone.
cd "$(dirname "$0")"
. ./cluster.sh
if test -z "${SPILLWAY_TEST_KUBECONFIG-}" && ! test -e "$dir/up"; then
    trap ./down.sh EXIT
    ./up.sh
fi
go vet -tags kube ./...
go test -tags kube -count=1 -parallel 16 -timeout 20m ./...
