package counts

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Flavour is a family of gateways that show the same metrics.
type Flavour string

// The flavours. Each needs a counter of answers by status that is divided by backend.
const (
	// Traefik counts by backend of each rule of an HTTPRoute: traefik_service_requests_total, with addServicesLabels,
	// which is the default. So requests that were dealt are told from those that a header led to the candidate. What
	// it answers itself, for a backend without endpoints, it counts by rule only: with addRoutersLabels, which is not
	// the default, and read from its instances, these failures are the candidate's where it is the one that stands
	// still.
	Traefik Flavour = "traefik"
	// Envoy counts by cluster: envoy_cluster_upstream_rq_xx. With Istio and with Contour a cluster is a Service and
	// is found by itself. Envoy Gateway makes one cluster of a rule with all its backends, so they cannot be told
	// apart (envoyproxy/gateway#6742), unless a backend has a filter of its own: then each has a cluster, which
	// Service.Cluster has to name.
	Envoy Flavour = "envoy"
	// Nginx is ingress-nginx, which tells the Service of a canary Ingress from that of the main one:
	// nginx_ingress_controller_requests. NGINX Gateway Fabric on NGINX Open Source counts all requests of the gateway
	// together: it cannot be used.
	Nginx Flavour = "nginx"
)

// Service is a backend as a gateway knows it: one port of a Kubernetes Service.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"` // "castle-www-4"
	Port      int    `json:"port"`
	// Cluster is what the gateway calls it, where that does not follow from the Service: see Envoy. "" = it does.
	Cluster string `json:"cluster,omitempty"`
	// Asked is the HTTPRoute by which the server itself asks the gateway for it: "castle-www-4-reach". Where the gateway
	// counts by rule, what comes by it is left out. "" = there is none.
	Asked string `json:"asked,omitempty"`
}

// String is "default/castle-www-4:80".
func (s Service) String() string { return fmt.Sprintf("%s/%s:%d", s.Namespace, s.Name, s.Port) }

// metric is the counter of answers of a flavour.
func (f Flavour) metric() string {
	switch f {
	case Traefik:
		return "traefik_service_requests_total"
	case Envoy:
		return "envoy_cluster_upstream_rq_xx"
	case Nginx:
		return "nginx_ingress_controller_requests"
	}
	return ""
}

// rules is the counter of answers by rule of a route, "" = there is none.
func (f Flavour) rules() string {
	if f == Traefik {
		return "traefik_router_requests_total"
	}
	return ""
}

// times is the histogram of answers by backend, and the unit of its bounds; "" = there is none that is read.
func (f Flavour) times() (metric string, unit time.Duration) {
	switch f {
	case Traefik:
		return "traefik_service_request_duration_seconds_bucket", time.Second
	case Envoy:
		return "envoy_cluster_upstream_rq_time_bucket", time.Millisecond
	}
	return "", 0
}

// backendLabels and statusLabel are the labels that matter. Prometheus renames labels of a target that it has
// itself, by putting exported_ in front.
func (f Flavour) backendLabels() []string {
	switch f {
	case Traefik:
		return []string{"service"}
	case Envoy:
		return []string{"envoy_cluster_name"}
	}
	return []string{"canary", "namespace", "service"}
}

func (f Flavour) statusLabel() string {
	switch f {
	case Traefik:
		return "code"
	case Envoy:
		return "envoy_response_code_class"
	}
	return "status"
}

// labels are those of one series.
type labels map[string]string

// of gives a label as the gateway wrote it.
func (l labels) of(name string) string {
	if v, ok := l["exported_"+name]; ok {
		return v
	}
	return l[name]
}

// failed reports whether the series counts failures: 5xx.
func (f Flavour) failed(l labels) bool { return strings.HasPrefix(l.of(f.statusLabel()), "5") }

// cluster is what the gateway calls the backend of a series.
func (f Flavour) cluster(l labels) string {
	switch f {
	case Nginx:
		if canary := l.of("canary"); canary != "" {
			return canary
		}
		return l.of("namespace") + "/" + l.of("service")
	default:
		return l.of(f.backendLabels()[0])
	}
}

// gatewayProvider ends the names of Traefik that come from the Gateway API.
const gatewayProvider = "@kubernetesgateway"

// names are those that a Service may have in a form.
func (f Flavour) names(s Service) []string {
	if s.Cluster != "" {
		return []string{s.Cluster}
	}
	switch f {
	case Traefik:
		return []string{s.Namespace + "-" + s.Name}
	case Envoy:
		return []string{
			fmt.Sprintf("outbound|%d||%s.%s", s.Port, s.Name, s.Namespace), // Istio
			fmt.Sprintf("%s_%s_%d", s.Namespace, s.Name, s.Port),           // Contour
		}
	}
	return []string{fmt.Sprintf("%s-%s-%d", s.Namespace, s.Name, s.Port), s.Namespace + "/" + s.Name}
}

// form is one way to read a cluster: the name of a Service that it may be the one of, in the form of names, and the rule of the
// route that it belongs to, "" = they cannot be told apart.
type form struct{ name, rule string }

// forms are the ways to read a cluster: as it is, and without what the gateway put around.
func (f Flavour) forms(cluster string) []form {
	all := []form{{name: cluster}}
	switch f {
	case Traefik:
		// httproute-NAMESPACE-ROUTE-gw-NAMESPACE-GATEWAY-ep-ENTRYPOINT-RULE-HASH-svc-NAMESPACE-SERVICE-BACKEND@kubernetesgateway
		name, ok := strings.CutSuffix(cluster, gatewayProvider)
		i := strings.LastIndexByte(name, '-')
		if _, err := strconv.Atoi(name[i+1:]); !ok || i < 0 || err != nil {
			return all
		}
		for end, rest := 0, name[:i]; ; { // a name may have -svc- in it
			_, after, found := strings.Cut(rest[end:], "-svc-")
			if !found {
				return all
			}
			end = len(rest) - len(after)
			all = append(all, form{name: after, rule: rest[:end-len("-svc-")]})
		}
	case Envoy:
		if i := strings.Index(cluster, ".svc."); i > 0 && strings.HasPrefix(cluster, "outbound|") {
			all = append(all, form{name: cluster[:i]})
		}
	}
	return all
}

// pattern is a regular expression for the backend label of the Services, for a Prometheus. It may find more.
func (f Flavour) pattern(names []string) string {
	quoted := make([]string, 0, len(names))
	for _, n := range names {
		quoted = append(quoted, regexp.QuoteMeta(n))
	}
	slices.Sort(quoted)
	any := "(" + strings.Join(quoted, "|") + ")"
	switch f {
	case Traefik:
		return "(.+-svc-)?" + any + "(-[0-9]+@kubernetesgateway)?"
	case Envoy:
		return any + "([.]svc[.].+)?"
	}
	return any
}
