# metrics-server, which autoscalers ask for the CPU of pods. Sourced by up.sh, where KUBE_WITH names metrics.

run metrics <<END
metrics-server --kubeconfig $dir/admin.conf --authentication-kubeconfig $dir/admin.conf --authorization-kubeconfig $dir/admin.conf \
  --bind-address $node --secure-port 4443 --cert-dir $dir/metrics --metric-resolution 10s --kubelet-request-timeout 5s \
  --kubelet-preferred-address-types InternalIP --kubelet-certificate-authority $dir/pki/ca.crt \
  --kubelet-client-certificate $dir/pki/admin.crt --kubelet-client-key $dir/pki/admin.key --node-selector type!=kwok
END
apply /api/v1/namespaces/kube-system/services/metrics-server <<END
{apiVersion: v1, kind: Service, metadata: {name: metrics-server, namespace: kube-system}, spec: {ports: [{name: https, port: 443, targetPort: 4443}]}}
END
apply /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/metrics-server <<END
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: metrics-server, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}},
 addressType: IPv4, ports: [{name: https, port: 4443}], endpoints: [{addresses: [$node], conditions: {ready: true}}]}
END
apply /apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io <<END
{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1beta1.metrics.k8s.io},
 spec: {service: {name: metrics-server, namespace: kube-system}, group: metrics.k8s.io, version: v1beta1, insecureSkipTLSVerify: true, groupPriorityMinimum: 100, versionPriority: 100}}
END
await 60 request /apis/metrics.k8s.io/v1beta1/nodes/node
