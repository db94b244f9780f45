# The control plane. Sourced by up.sh.

run etcd <<END
etcd --data-dir $dir/etcd --unsafe-no-fsync --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380
END
run apiserver <<END
kube-apiserver --etcd-servers http://127.0.0.1:2379 --secure-port 6443 --advertise-address $node \
  --client-ca-file $dir/pki/ca.crt --tls-cert-file $dir/pki/apiserver.crt --tls-private-key-file $dir/pki/apiserver.key \
  --kubelet-certificate-authority $dir/pki/ca.crt --kubelet-client-certificate $dir/pki/admin.crt --kubelet-client-key $dir/pki/admin.key \
  --kubelet-preferred-address-types InternalIP \
  --service-account-issuer https://kubernetes.default.svc \
  --service-account-key-file $dir/pki/accounts.pub --service-account-signing-key-file $dir/pki/accounts.key \
  --service-cluster-ip-range $services --authorization-mode Node,RBAC --allow-privileged --profiling=false \
  --requestheader-client-ca-file $dir/pki/ca.crt --requestheader-allowed-names front-proxy --requestheader-username-headers X-Remote-User \
  --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra- \
  --proxy-client-cert-file $dir/pki/front-proxy.crt --proxy-client-key-file $dir/pki/front-proxy.key --enable-aggregator-routing
END
await 120 request /readyz

# The controller manager ends itself where there is no API server yet. Its autoscaler is in a hurry here.
run controller-manager <<END
kube-controller-manager --kubeconfig $dir/controller-manager.conf --leader-elect=false --kube-api-qps 300 --kube-api-burst 600 \
  --authentication-kubeconfig $dir/controller-manager.conf --authorization-kubeconfig $dir/controller-manager.conf \
  --use-service-account-credentials --service-account-private-key-file $dir/pki/accounts.key --root-ca-file $dir/pki/ca.crt \
  --horizontal-pod-autoscaler-sync-period 5s --horizontal-pod-autoscaler-downscale-stabilization 20s \
  --horizontal-pod-autoscaler-cpu-initialization-period 15s --horizontal-pod-autoscaler-initial-readiness-delay 5s
END
run scheduler <<END
kube-scheduler --kubeconfig $dir/scheduler.conf --leader-elect=false --kube-api-qps 300 --kube-api-burst 600 \
  --authentication-kubeconfig $dir/scheduler.conf --authorization-kubeconfig $dir/scheduler.conf
END
