# The node: a registry, containerd with a bridge, the kubelet, kube-proxy, and DNS for the pods. Sourced by up.sh.

cat >"$dir/registry.yaml" <<END
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $dir/registry}, delete: {enabled: true}}
http: {addr: "$registry"}
END
run registry <<END
docker-registry serve $dir/registry.yaml
END
await 30 curl -sf "http://$registry/v2/"
push "$registry/pause:1" "$bin/pause" >/dev/null

mkdir -p "$dir/cni" "$dir/hosts/$registry"
cat >"$dir/hosts/$registry/hosts.toml" <<END
server = "http://$registry"
[host."http://$registry"]
END
cat >"$dir/cni/10-bridge.conflist" <<END
{"cniVersion": "1.0.0", "name": "spillway", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$dir/addresses", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}}
]}
END
cat >"$dir/containerd.toml" <<END
version = 2
root = "$dir/containerd"
state = "$dir/containerd-state"
[grpc]
  address = "$dir/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$registry/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true # not every machine for tests allows a lower one
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$dir/hosts"
END
run containerd <<END
containerd --config $dir/containerd.toml
END
await 30 ctr -a "$dir/containerd.sock" version

cat >"$dir/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $dir/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $dir/pki/kubelet.crt
tlsPrivateKeyFile: $dir/pki/kubelet.key
containerRuntimeEndpoint: unix://$dir/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$name
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
podLogsDir: $dir/pods
clusterDNS: [$node]
clusterDomain: cluster.local
resolvConf: ""
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
nodeStatusUpdateFrequency: 5s
END
run kubelet <<END
kubelet --config $dir/kubelet.yaml --kubeconfig $dir/kubelet.conf --hostname-override node --node-ip $node --root-dir $dir/kubelet --cert-dir $dir/kubelet/pki
END

apply /apis/rbac.authorization.k8s.io/v1/clusterrolebindings/node-proxier <<END
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: node-proxier},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-proxier"},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:kube-proxy"}]}
END
cat >"$dir/proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $dir/proxy.conf}
clusterCIDR: $pods
oomScoreAdj: 0
conntrack: {maxPerCore: 0}
END
run proxy <<END
kube-proxy --config $dir/proxy.yaml --hostname-override node
END

cat >"$dir/Corefile" <<END
.:53 {
  bind $node
  health $node:8080
  errors
  kubernetes cluster.local {
    kubeconfig $dir/admin.conf spillway
  }
}
END
run dns <<END
coredns -conf $dir/Corefile
END
