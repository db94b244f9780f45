package counts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// TestFlavours: each tells the candidate of a trial from stable by its series, and its failures from the rest.
func TestFlavours(t *testing.T) {
	for name, test := range map[string]struct {
		flavour  counts.Flavour
		metric   string
		stable   string // labels
		good     string
		bad      string
		clusters [2]string
	}{
		"traefik": {
			flavour: counts.Traefik, metric: "traefik_service_requests_total",
			stable: `code="200",method="GET",protocol="http",service="httproute-shop-a-svc-b-gw-gateway-public-ep-web-0-1f-svc-shop-castle-www-4-0@kubernetesgateway"`,
			good:   `code="404",method="GET",protocol="http",service="httproute-shop-a-svc-b-gw-gateway-public-ep-web-0-1f-svc-shop-castle-www-5-1@kubernetesgateway"`,
			bad:    `code="504",method="GET",protocol="http",service="httproute-shop-a-svc-b-gw-gateway-public-ep-web-0-1f-svc-shop-castle-www-5-1@kubernetesgateway"`,
		},
		"istio": {
			flavour: counts.Envoy, metric: "envoy_cluster_upstream_rq_xx",
			stable: `envoy_response_code_class="2",envoy_cluster_name="outbound|80||castle-www-4.shop.svc.cluster.local"`,
			good:   `envoy_response_code_class="2",envoy_cluster_name="outbound|80||castle-www-5.shop.svc.cluster.local"`,
			bad:    `envoy_response_code_class="5",envoy_cluster_name="outbound|80||castle-www-5.shop.svc.cluster.local"`,
		},
		"contour": {
			flavour: counts.Envoy, metric: "envoy_cluster_upstream_rq_xx",
			stable: `envoy_response_code_class="2",envoy_cluster_name="shop_castle-www-4_80"`,
			good:   `envoy_response_code_class="4",envoy_cluster_name="shop_castle-www-5_80"`,
			bad:    `envoy_response_code_class="5",envoy_cluster_name="shop_castle-www-5_80"`,
		},
		"envoy gateway": {
			flavour: counts.Envoy, metric: "envoy_cluster_upstream_rq_xx",
			stable:   `envoy_response_code_class="2",envoy_cluster_name="httproute/shop/castle-www/rule/0/backend/0"`,
			good:     `envoy_response_code_class="2",envoy_cluster_name="httproute/shop/castle-www/rule/0/backend/1"`,
			bad:      `envoy_response_code_class="5",envoy_cluster_name="httproute/shop/castle-www/rule/0/backend/1"`,
			clusters: [2]string{"httproute/shop/castle-www/rule/0/backend/0", "httproute/shop/castle-www/rule/0/backend/1"},
		},
		"ingress-nginx": {
			flavour: counts.Nginx, metric: "nginx_ingress_controller_requests",
			stable: `canary="",ingress="castle-www",namespace="shop",service="castle-www-4",status="200"`,
			good:   `canary="shop-castle-www-5-80",ingress="castle-www",namespace="shop",service="castle-www-4",status="200"`,
			bad:    `canary="shop-castle-www-5-80",ingress="castle-www",namespace="shop",service="castle-www-4",status="502"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			show := func(stable, good, bad int) string {
				rows := []string{"# TYPE " + test.metric + " counter"}
				for labels, n := range map[string]int{test.stable: stable, test.good: good, test.bad: bad} {
					rows = append(rows, fmt.Sprintf("%s{%s} %d", test.metric, labels, n))
				}
				for _, other := range []string{"castle-www-44", "castle-www", "4"} {
					rows = append(rows, fmt.Sprintf("%s{%s} 7", test.metric, strings.ReplaceAll(test.stable, "castle-www-4", other)))
				}
				return strings.Join(rows, "\n") + "\n"
			}
			if test.clusters[0] != "" {
				show = func(stable, good, bad int) string {
					return fmt.Sprintf("# TYPE %[1]s counter\n%[1]s{%[2]s} %[5]d\n%[1]s{%[3]s} %[6]d\n%[1]s{%[4]s} %[7]d\n",
						test.metric, test.stable, test.good, test.bad, stable, good, bad)
				}
			}
			w := newWorld(t, 1, func(c *counts.Config) { c.Flavour = test.flavour })
			r := route(spillway.Percent(10))
			for i, name := range []string{"www.4", "www.5"} {
				s := r.Services[name]
				s.Cluster = test.clusters[i]
				r.Services[name] = s
			}
			w.gateways[0].instead(text(show(100, 10, 1)))
			w.follow(r)
			w.look()
			w.gateways[0].instead(text(show(190, 20, 2)))
			w.look()
			w.want(spillway.Undecided, 11, 1, 90)
		})
	}
}
