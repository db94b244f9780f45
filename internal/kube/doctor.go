package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// A Right is something that the server must be allowed to do in its namespace.
type Right struct {
	Group     string // API group, "" = core
	Resource  string // plural: "deployments"
	Verbs     []string
	Name      string // of the one object; "" = all
	Namespace string // another one than the server's; "" = the server's
}

// Rights are all that the server needs, no more. services are those by which the instances of the gateway are found.
func Rights(g Gateway, services ...ServiceName) []Right {
	all := []string{"get", "list", "watch", "create", "patch", "delete"}
	rights := []Right{
		{Group: "apps", Resource: "deployments", Verbs: all},
		{Group: "batch", Resource: "jobs", Verbs: all},
		{Resource: "services", Verbs: all},
		{Group: "discovery.k8s.io", Resource: "endpointslices", Verbs: all},
		{Group: "networking.k8s.io", Resource: "networkpolicies", Verbs: all},
		{Group: "autoscaling", Resource: "horizontalpodautoscalers", Verbs: all},
		{Group: "policy", Resource: "poddisruptionbudgets", Verbs: all},
		{Resource: "pods", Verbs: []string{"get", "list", "watch"}},
		{Resource: "events", Verbs: []string{"list"}},
		{Resource: "pods/log", Verbs: []string{"get"}},
		{Group: "coordination.k8s.io", Resource: "leases", Verbs: []string{"get", "create", "update"}},
		{Group: v1alpha1.Group, Resource: "apps/finalizers", Verbs: []string{"update"}}, // to be owned by an App (OwnerReferencesPermissionEnforcement)
	}
	for _, rule := range state.Rules() { // each of one kind
		rights = append(rights, Right{Group: rule.APIGroups[0], Resource: rule.Resources[0], Verbs: rule.Verbs})
	}
	rights = append(rights, Right{Group: gatewayv1.GroupName, Resource: "httproutes", Verbs: all}) // without a gateway too: old ones have to go
	if g.Name != "" {
		rights = append(rights, Right{Group: gatewayv1.GroupName, Resource: "gateways", Verbs: []string{"get"}, Namespace: g.Namespace})
	}
	for n, s := range services {
		watched := []string{"get", "list", "watch"}
		rights = append(rights, Right{Resource: "services", Verbs: watched, Name: s.Name, Namespace: s.Namespace})
		if !slices.ContainsFunc(services[:n], func(other ServiceName) bool { return other.Namespace == s.Namespace }) { // their names are not known before
			rights = append(rights, Right{Group: "discovery.k8s.io", Resource: "endpointslices", Verbs: watched, Namespace: s.Namespace})
		}
	}
	return rights
}

// Doctor looks at what the platform needs of the cluster. It changes nothing.
func (p *Platform) Doctor(ctx context.Context) []spillway.Check {
	asks, err := discovery.NewDiscoveryClientForConfig(p.conf.Rest)
	if err != nil {
		return []spillway.Check{{Name: "cluster", State: "fail", Text: err.Error()}}
	}
	version, err := asks.ServerVersion()
	if err != nil {
		return []spillway.Check{{Name: "cluster", State: "fail", Text: spillway.Text(explain("ask the API server for its version", err)), Remedy: "is " + p.conf.Rest.Host + " reached from here?"}}
	}
	checks := []spillway.Check{{Name: "cluster", State: "ok", Text: fmt.Sprintf("Kubernetes %s at %s, namespace %s", version.GitVersion, p.conf.Rest.Host, p.conf.Namespace)}}
	if !p.isDefined() {
		checks = append(checks, spillway.Check{Name: "definitions", State: "fail", Text: "the cluster does not know App and Release, so there are no apps", Remedy: "spillway kube install; the server begins by itself then"})
	}
	checks = append(checks, checkClock(ctx, p.conf.Rest), p.checkRights(ctx), p.checkGateway(ctx), p.checkInstances(ctx))
	if p.conf.Gateway.Name != "" {
		checks = append(checks, p.checkHosts(ctx))
	}
	if p.conf.PullSecret != "" {
		checks = append(checks, p.checkPullSecret(ctx))
	}
	return checks
}

// skew is how far the clocks of the cluster and of the server may be apart before people are told.
const skew = 5 * time.Second

// checkClock compares the clock of the API server with our own. Nothing is decided by the difference; times that people
// read are wrong by it, and so is how long an autoscaler is waited for.
func checkClock(ctx context.Context, c *rest.Config) spillway.Check {
	check := spillway.Check{Name: "clock", State: "warn"}
	at, err := apiTime(ctx, c)
	if err != nil {
		check.Text = "the API server does not tell its time: " + err.Error()
		return check
	}
	switch ahead := time.Since(at).Truncate(time.Second); {
	case ahead > skew:
		check.Text = fmt.Sprintf("the server's clock is %v ahead of the API server's", ahead)
	case ahead < -skew:
		check.Text = fmt.Sprintf("the server's clock is %v behind the API server's", -ahead)
	default:
		return spillway.Check{Name: "clock", State: "ok", Text: "as the API server's"}
	}
	check.Remedy = "set the clocks of the nodes by NTP; see which is off: date, and kubectl get events"
	return check
}

// apiTime is the time by the clock of the API server, in whole seconds.
func apiTime(ctx context.Context, c *rest.Config) (time.Time, error) {
	asks, err := rest.HTTPClientFor(c)
	if err != nil {
		return time.Time{}, err
	}
	base, _, err := rest.DefaultServerUrlFor(c)
	if err != nil {
		return time.Time{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, base.JoinPath("version").String(), nil)
	if err != nil {
		return time.Time{}, err
	}
	answer, err := asks.Do(request)
	if err != nil {
		return time.Time{}, err
	}
	_ = answer.Body.Close() // there is none
	return http.ParseTime(answer.Header.Get("Date"))
}

// checkRights asks the API server what the server may do.
func (p *Platform) checkRights(ctx context.Context) spillway.Check {
	c := spillway.Check{Name: "rights", State: "ok", Text: "the server may do all that it has to"}
	var missing []string
	for _, r := range Rights(p.conf.Gateway, p.conf.Instances.Services()...) {
		resource, sub, _ := strings.Cut(r.Resource, "/")
		for _, verb := range r.Verbs {
			namespace := r.Namespace
			if namespace == "" {
				namespace = p.conf.Namespace
			}
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: namespace, Group: r.Group, Resource: resource, Subresource: sub, Verb: verb, Name: r.Name,
			}}}
			if err := p.live.Create(ctx, review); err != nil {
				return spillway.Check{Name: "rights", State: "fail", Text: spillway.Text(explain("ask what the server may do", err))}
			}
			if !review.Status.Allowed {
				missing = append(missing, fmt.Sprintf("%s %s in %s", verb, r.Resource, namespace))
			}
		}
	}
	if len(missing) > 0 {
		c.State, c.Text, c.Remedy = "fail", "the server may not "+strings.Join(missing, ", "), "spillway kube install gives it these rights"
	}
	return c
}

// checkGateway looks at the gateway as users meet it.
func (p *Platform) checkGateway(ctx context.Context) spillway.Check {
	c := spillway.Check{Name: "gateway", State: "fail"}
	g := p.conf.Gateway
	if g.Name == "" {
		return spillway.Check{Name: "gateway", State: "warn", Text: "there is none, so users are divided by replicas, and nobody judges", Remedy: "start the server with " + toldGateway}
	}
	var found gatewayv1.Gateway
	if err := p.live.Get(ctx, client.ObjectKey{Namespace: g.Namespace, Name: g.Name}, &found); err != nil {
		c.Text, c.Remedy = spillway.Text(explain("look for gateway "+g.Namespace+"/"+g.Name, err)), "kubectl get gateways -A tells which there are"
		return c
	}
	i := slices.IndexFunc(found.Status.Conditions, func(c metav1.Condition) bool { return c.Type == string(gatewayv1.GatewayConditionProgrammed) })
	if i < 0 || found.Status.Conditions[i].Status != metav1.ConditionTrue {
		c.Text, c.Remedy = fmt.Sprintf("gateway %s/%s is not programmed", g.Namespace, g.Name), "kubectl describe gateway -n "+g.Namespace+" "+g.Name
		return c
	}
	entrances, problem := p.entrances(ctx)
	var bases []string
	for _, e := range entrances {
		bases = append(bases, e.base)
		if _, status, err := p.look(ctx, opening{base: e.base}, probePrefix, cmp.Or(concrete(e.host), "doctor.spillway.invalid")); err != nil {
			problem = fmt.Sprintf("the gateway cannot be asked: %v", err)
		} else if status >= http.StatusInternalServerError {
			problem = fmt.Sprintf("the gateway at %s answers %d", e.base, status)
		}
	}
	if problem != "" {
		c.Text, c.Remedy = problem, "see how the gateway is reached from here, and say so: --gateway-url"
		return c
	}
	if broken := brokenListeners(&found, g.Section); len(broken) > 0 {
		return spillway.Check{Name: "gateway", State: "warn", Text: fmt.Sprintf("%s/%s does not serve %s", g.Namespace, g.Name, strings.Join(broken, "; ")), Remedy: "kubectl describe gateway -n " + g.Namespace + " " + g.Name}
	}
	return spillway.Check{Name: "gateway", State: "ok", Text: fmt.Sprintf("%s/%s of class %s answers at %s", g.Namespace, g.Name, found.Spec.GatewayClassName, strings.Join(bases, ", "))}
}

// sayInstances is how the server is told where the instances of a gateway are.
const sayInstances = "name the Service that users come by: --gateway-instances NAME.NAMESPACE:PORT"

// checkInstances looks whether every instance of the gateway is known and can be asked.
func (p *Platform) checkInstances(ctx context.Context) spillway.Check {
	c := spillway.Check{Name: "instances", State: "warn"}
	if p.conf.Gateway.Name == "" {
		return spillway.Check{Name: "instances", State: "ok", Text: "there is no gateway that could have several"}
	}
	if all, problem := p.conf.Instances.Metrics(); problem != "" {
		c.Text = fmt.Sprintf("%d instances of the gateway are judged by, and of others it is not known whether there are any: %s", len(all), problem)
		c.Remedy = "name the Service that has the port of the metrics: --gateway-metrics http://NAME.NAMESPACE:PORT/metrics; the rights to read it come with spillway kube upgrade"
		return c
	}
	entrances, problem := p.entrances(ctx)
	if problem != "" {
		c.Text, c.Remedy = problem, "see the check of the gateway"
		return c
	}
	var bases []string
	for _, e := range entrances {
		bases = append(bases, e.base)
	}
	k := p.conf.Instances.serving(bases)
	if !k.all {
		c.Text = fmt.Sprintf("of a gateway of several instances each may serve another route for a moment, and they are not known (%s): so what it answers is believed after %s, at every step", k.problem, calmTime)
		c.Remedy = sayInstances
		return c
	}
	known := 1
	for _, base := range bases {
		for _, at := range k.at[base] {
			if _, _, err := p.look(ctx, opening{base, at}, probePrefix, "doctor.spillway.invalid"); err != nil {
				c.Text, c.Remedy = fmt.Sprintf("%s cannot be asked from here: %v", opening{base, at}, err), "let the server reach that port (a NetworkPolicy?), or "+sayInstances
				return c
			}
		}
		known = max(known, len(k.at[base]))
	}
	return spillway.Check{Name: "instances", State: "ok", Text: fmt.Sprintf("%d of the gateway, and each is asked", known)}
}
