# The Gateway API, and Traefik as the gateway: beside the pods, on the address of the node. Sourced by up.sh.

for crd in "$bin"/gateway-api/*.yaml; do
    apply "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/$(sed -n 's/^  name: //p' "$crd")" <"$crd"
done
await 30 holds /apis/apiextensions.k8s.io/v1/customresourcedefinitions/httproutes.gateway.networking.k8s.io Established
await 30 holds /apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.gateway.networking.k8s.io Established

run traefik <<END
env KUBECONFIG=$dir/admin.conf traefik --providers.kubernetesgateway --providers.kubernetesgateway.statusaddress.ip=$node \
  --entrypoints.web.address=$gateway --entrypoints.websecure.address=$node:443 --entrypoints.metrics.address=$node:9100 --ping --ping.entrypoint=metrics \
  --metrics.prometheus --metrics.prometheus.entrypoint=metrics --metrics.prometheus.addserviceslabels --metrics.prometheus.addrouterslabels \
  --global.checknewversion=false --global.sendanonymoususage=false --log.level=INFO
END
apply /api/v1/namespaces/gateway <<END
{apiVersion: v1, kind: Namespace, metadata: {name: gateway}}
END
apply /apis/gateway.networking.k8s.io/v1/gatewayclasses/traefik <<END
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: traefik}, spec: {controllerName: traefik.io/gateway-controller}}
END
# TLS ends at the gateway: the names of all tests, which are NAME.localhost and no deeper, have one certificate.
certificate public /CN=localhost 'DNS:*.localhost'
apply /api/v1/namespaces/gateway/secrets/public <<END
{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: public, namespace: gateway},
 data: {tls.crt: $(base64 -w 0 "$dir/pki/public.crt"), tls.key: $(base64 -w 0 "$dir/pki/public.key"), ca.crt: $(base64 -w 0 "$dir/pki/ca.crt")}}
END
apply /apis/gateway.networking.k8s.io/v1/namespaces/gateway/gateways/public <<END
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: public, namespace: gateway},
 spec: {gatewayClassName: traefik, listeners: [{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}},
   {name: websecure, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: public}]}, allowedRoutes: {namespaces: {from: All}}}]}}
END
# Its metrics have a Service too, as they have where the gateway is a pod.
apply /api/v1/namespaces/gateway/services/traefik <<END
{apiVersion: v1, kind: Service, metadata: {name: traefik, namespace: gateway}, spec: {ports: [{name: web, port: 80}, {name: websecure, port: 443}, {name: metrics, port: 9100}]}}
END
apply /apis/discovery.k8s.io/v1/namespaces/gateway/endpointslices/traefik <<END
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: traefik, namespace: gateway, labels: {kubernetes.io/service-name: traefik}},
 addressType: IPv4, ports: [{name: web, port: 80}, {name: websecure, port: 443}, {name: metrics, port: 9100}], endpoints: [{addresses: [$node], conditions: {ready: true}}]}
END
