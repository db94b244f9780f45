# Two more instances of the gateway, each at an address of its own, and all three behind the Service traefik. Sourced by
# up.sh.

for n in 2 3; do
    inside ip addr add "$net.0.$n/24" dev eth0
    sed "s/^exec //; s/$node:/$net.0.$n:/g" "$dir/run/traefik" | run "traefik$n"
done
for n in 1 2 3; do
    await 30 curl -sf "http://$net.0.$n:9100/ping"
done
apply /apis/discovery.k8s.io/v1/namespaces/gateway/endpointslices/traefik <<END
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: traefik, namespace: gateway, labels: {kubernetes.io/service-name: traefik}},
 addressType: IPv4, ports: [{name: web, port: 80}, {name: websecure, port: 443}, {name: metrics, port: 9100}],
 endpoints: [{addresses: [$node], conditions: {ready: true}}, {addresses: [$net.0.2], conditions: {ready: true}}, {addresses: [$net.0.3], conditions: {ready: true}}]}
END
touch "$dir/run/gateways"
