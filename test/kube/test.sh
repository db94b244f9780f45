#!/bin/sh
# Runs the tests that need a cluster: on the one that SPILLWAY_TEST_KUBECONFIG names or make kube-up has started, else on
# one of their own, which is there for them alone. Tests of autoscalers need metrics-server, which is added to a cluster of ours.
cd "$(dirname "$0")"
. ./cluster.sh
if test -z "${SPILLWAY_TEST_KUBECONFIG-}"; then
    test -e "$dir/up" || trap ./down.sh EXIT
    KUBE_WITH="metrics ${KUBE_WITH-}" ./up.sh
fi
go vet -tags kube ./...
go test -tags kube -count=1 -parallel 16 -timeout 20m ./...
