# kwok and KWOK_NODES fake nodes (50), whose pods are ready at once and serve nothing. Only pods that tolerate the taint
# kwok.x-k8s.io/node get there; the label type=kwok selects the nodes. Sourced by up.sh, where KUBE_WITH names kwok.

run kwok <<END
kwok --config $bin/kwok.yaml --kubeconfig $dir/admin.conf --manage-all-nodes=false --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake \
  --cidr $net.192.0/18 --node-ip $node --node-lease-duration-seconds 40
END
for number in $(seq "${KWOK_NODES:-50}"); do
    apply "/api/v1/nodes/fake-$number" <<END
{apiVersion: v1, kind: Node, metadata: {name: fake-$number, labels: {type: kwok, kubernetes.io/hostname: fake-$number}, annotations: {kwok.x-k8s.io/node: fake}},
 spec: {taints: [{key: kwok.x-k8s.io/node, value: fake, effect: NoSchedule}]}}
END
done
await 120 holds "/api/v1/nodes/fake-${KWOK_NODES:-50}" Ready
