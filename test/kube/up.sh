#!/bin/sh
# Starts the test cluster, or adds to a running one the parts that KUBE_WITH names: README.md says more. It needs root.
cd "$(dirname "$0")"
. ./cluster.sh
test "$(id -u)" = 0 || { echo "kube: only root can make the namespaces of a cluster" >&2; exit 1; }
./needs.sh
./build.sh

begin=$(date +%s%N)
if ! test -e "$dir/up"; then
    mkdir "$dir" || { echo "kube: what is there is starting or did not come up; its logs are in $dir/log, and make kube-down removes it" >&2; exit 1; }
    mkdir "$dir/run" "$dir/log" "$dir/pid" "$dir/pki"
    . ./namespaces.sh
    . ./certificates.sh
    . ./plane.sh
    . ./node.sh
    . ./gateway.sh
    await 60 holds /api/v1/nodes/node Ready
    await 60 holds /apis/gateway.networking.k8s.io/v1/namespaces/gateway/gateways/public Programmed
    await 60 request /api/v1/namespaces/default/serviceaccounts/default
    await 60 curl -sf "http://$node:8080/health"
    touch "$dir/up"
elif ! alive; then
    echo "kube: the cluster in $dir has died; make kube-down removes what is left" >&2
    exit 1
fi
for part in ${KUBE_WITH-}; do
    test -e "$dir/run/$part" || . "./$part.sh"
done
echo "export KUBECONFIG=$dir/admin.conf # up in $((($(date +%s%N) - begin) / 1000000)) ms"
