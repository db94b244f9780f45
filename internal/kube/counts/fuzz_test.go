package counts_test

import (
	"os"
	"testing"

	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// FuzzParse: whatever answers, nothing breaks and no tally is impossible.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"dead", "gone"} {
		text, err := os.ReadFile("testdata/traefik-3.7.9-" + name + ".txt")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "traefik")
	}
	f.Add([]byte("# TYPE envoy_cluster_upstream_rq_xx counter\nenvoy_cluster_upstream_rq_xx{envoy_cluster_name=\"shop_castle-www-4_80\",envoy_response_code_class=\"5\"} 1e15\n"), "envoy")
	f.Add([]byte("# TYPE x counter\nnginx_ingress_controller_requests{namespace=\"shop\",service=\"castle-www-4\"} 1 2\n"), "nginx")
	f.Fuzz(func(_ *testing.T, body []byte, flavour string) {
		_, _ = counts.Parse(body, counts.Flavour(flavour), "shop-castle-www-4", "shop_castle-www-4_80", "shop/castle-www-4")
	})
}
