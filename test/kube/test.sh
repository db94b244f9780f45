#!/bin/sh
# test.sh runs the tests that need a cluster: on the one that SPILLWAY_TEST_KUBECONFIG names or make kube-up has
# started, else on one of their own, which is there for them alone. KUBE_WITH=metrics adds those of autoscalers, which
# need metrics-server and a machine that has nothing else to do, and KUBE_WITH=gateways those of a gateway of several
# instances. One after the other: what they measure is made of processor time.
cd "$(dirname "$0")"
. ./cluster.sh
if test -z "${SPILLWAY_TEST_KUBECONFIG-}"; then
    test -e "$dir/up" || trap ./down.sh EXIT
    ./up.sh
fi
skip=NONE
case " ${KUBE_WITH-} " in *" metrics "*) ;; *) skip="$skip|Autoscal|HPA|Story4_ADeploy" ;; esac
case " ${KUBE_WITH-} " in *" gateways "*) ;; *) skip="$skip|SeveralInstances" ;; esac
go vet -tags kube ./...
config=${SPILLWAY_TEST_KUBECONFIG-$dir/admin.conf} # the stores and objects, as a real API server takes them
(cd ../.. && KUBECONFIG=$config SPILLWAY_TEST_KUBECONFIG=$config go test -tags kube -count=1 ./internal/kube/...)
go test -tags kube -count=1 -parallel 16 -timeout 15m -skip "$skip" . # most of it is waiting
go test -tags kube -count=1 -parallel 4 -timeout 25m -skip "$skip" ./e2e
