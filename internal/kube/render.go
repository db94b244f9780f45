package kube

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// servicePort is the port of every Service that we make; it leads to the port of the program.
const servicePort = 80

// portName is the name of the program's port.
const portName = "main"

// rendering makes the objects of one app. It is pure: the same fields give the same objects.
type rendering struct {
	ref       spillway.Ref
	namespace string
	releases  map[int]spillway.Release
	desired   rollout.Desired
	gateway   Gateway
	// publicType is that of the Services of public edges where there is no gateway; "" = ClusterIP.
	publicType corev1.ServiceType
	pullSecret string                            // the Secret by which nodes pull images; "" = none
	owner      *metav1.OwnerReference            // nil = none
	tracks     map[spillway.Group]string         // of groups that are there: a group keeps the track that it was made for
	otherPulls map[string]corev1.PodTemplateSpec // see Platform.otherPulls
	addresses  map[string][]netip.Addr           // of the names of servers that Spillway does not run
}

// objects are all that should be there, in the order in which they are made: what is pointed to comes before
// what points.
func (r *rendering) objects() ([]client.Object, error) {
	var services, replicas, rest []client.Object
	for _, w := range r.desired.Groups {
		if w.Replicas == 0 {
			continue
		}
		if r.untold(w) {
			continue
		}
		s, ok := r.releases[w.Release].Config.Service(w.Group.Service)
		if !ok {
			return nil, fmt.Errorf("release %d has no service %s: %w", w.Release, w.Group.Service, spillway.ErrNotFound)
		}
		deployment, err := r.deployment(w, s)
		if err != nil {
			return nil, err
		}
		if r.ledTo(w) {
			services = append(services, r.groupService(w.Group, s))
		}
		replicas = append(replicas, deployment)
		if w.Scaling.Max > 0 {
			rest = append(rest, r.autoscaler(w, s))
		}
		if max(w.Replicas, w.Scaling.Max) > 1 {
			rest = append(rest, r.disruptionBudget(w))
		}
	}
	for _, e := range r.desired.Route.Edges {
		if e.From != (spillway.Group{}) {
			services = append(services, r.edgeService(e))
		}
	}
	rest = append(rest, r.networkPolicies()...)
	for _, t := range r.desired.Tasks {
		job, err := r.job(t)
		if err != nil {
			return nil, err
		}
		replicas = append(replicas, job)
	}
	routes, err := r.httpRoutes()
	if err != nil {
		return nil, err
	}
	servers, err := r.servers()
	if err != nil {
		return nil, err
	}
	return slices.Concat(services, servers, replicas, rest, r.reachRoutes(), routes), nil
}

// untold reports whether nobody knows any more what a group runs: it is on its way out, and somebody deleted its Release.
// What there is of it stays as it is until it is not wanted.
func (r *rendering) untold(w rollout.Want) bool { return r.releases[w.Release].Number == 0 }

// meta is the metadata of an object of the app.
func (r *rendering) meta(name string, labels map[string]string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, Namespace: r.namespace, Labels: labels, Annotations: marks(r.ref)}
	if r.owner != nil {
		m.OwnerReferences = []metav1.OwnerReference{*r.owner}
	}
	return m
}

// annotate adds annotations to an object.
func (r *rendering) annotate(o metav1.Object, more map[string]string) {
	all := maps.Clone(o.GetAnnotations())
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, more)
	o.SetAnnotations(all)
}

// ledTo reports whether a gateway leads to a group, or is asked for it. Who needs a private service reaches it by the
// Service of its own edge, and one that nobody asks for costs an address of the cluster.
func (r *rendering) ledTo(w rollout.Want) bool {
	return r.askedAt(w) != "" || slices.ContainsFunc(r.desired.Route.Edges, func(e spillway.Edge) bool {
		return r.gateway.Name != "" && e.From == (spillway.Group{}) && slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool { return b.Group == w.Group })
	})
}

// groupService is the address of a group: what routes lead to.
func (r *rendering) groupService(g spillway.Group, s spillway.Service) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: r.meta(groupName(r.ref, g), labels(r.ref, g)),
		Spec:       corev1.ServiceSpec{Selector: selector(r.ref, g), Ports: []corev1.ServicePort{portOf(s.Protocol)}},
	}
}

// portOf is the one port of a Service. Gateways are told what is spoken there by appProtocol (KEP-1422; the
// Gateway API, GEP-1911).
func portOf(p spillway.Protocol) corev1.ServicePort {
	port := corev1.ServicePort{Name: "http", Port: servicePort, TargetPort: intstr.FromString(portName), Protocol: corev1.ProtocolTCP}
	protocol := "http"
	switch p {
	case spillway.H2C, spillway.GRPC:
		protocol = "kubernetes.io/h2c"
	case spillway.TCP:
		port.Name, protocol = "tcp", ""
	}
	if protocol != "" {
		port.AppProtocol = &protocol
	}
	return port
}

// edgeService is the address at which the replicas of one group reach a service that they need. It leads to one
// group: on Kubernetes the callers of what changed are groups of their own (see Regroup's whole).
func (r *rendering) edgeService(e spillway.Edge) *corev1.Service {
	all := own(r.ref)
	all[ServiceLabel], all["spillway.dev/from"] = e.Service, fmt.Sprintf("%s.%d", e.From.Service, e.From.Release)
	service := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: r.meta(edgeName(r.ref, e.From, e.Service), all),
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{portOf(e.Protocol)}},
	}
	r.annotate(service, r.part(e))
	service.Spec.Selector = nobody(r.ref, e.Service) // closed
	if b, ok := heaviest(e); ok {
		service.Spec.Selector = selector(r.ref, b.Group)
	}
	return service
}

// heaviest is the backend with the largest weight, false when there is none.
func heaviest(e spillway.Edge) (best spillway.Backend, ok bool) {
	for _, b := range e.Backends {
		if !ok || b.Weight > best.Weight {
			best, ok = b, true
		}
	}
	return best, ok
}

// part are the annotations of an object that is a part of the route.
func (r *rendering) part(e spillway.Edge) map[string]string {
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // an edge is strings and numbers
	}
	return map[string]string{edgeAnnotation: string(text), generationAnnotation: strconv.FormatInt(r.desired.Route.Generation, 10)}
}

// disruptionBudget keeps evictions (a drained node) from taking more than one replica at a time.
func (r *rendering) disruptionBudget(w rollout.Want) *policyv1.PodDisruptionBudget {
	one := intstr.FromInt32(1)
	return &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: r.meta(groupName(r.ref, w.Group), labels(r.ref, w.Group)),
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: selector(r.ref, w.Group)}},
	}
}

// networkPolicies let only replicas of the app reach services that are private in every release that is wanted.
func (r *rendering) networkPolicies() []client.Object {
	public, private := map[string]bool{}, map[string]bool{}
	for _, w := range r.desired.Groups {
		if s, ok := r.releases[w.Release].Config.Service(w.Group.Service); ok && w.Replicas > 0 {
			public[s.Name] = public[s.Name] || s.Public() || r.askedAt(w) != ""
			private[s.Name] = true
		}
	}
	for _, e := range r.desired.Route.Edges {
		if e.From == (spillway.Group{}) {
			for _, b := range e.Backends {
				public[cmp.Or(b.Group.Service, e.Service)] = true
			}
		}
	}
	var policies []client.Object
	for _, name := range sortedKeys(private) {
		if public[name] {
			continue
		}
		all := own(r.ref)
		all[ServiceLabel] = name
		policies = append(policies, &networkingv1.NetworkPolicy{
			TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
			ObjectMeta: r.meta(Name(r.ref, name), all),
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{AppLabel: v1alpha1.Label(r.ref), ServiceLabel: name}},
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
				Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
					PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{AppLabel: v1alpha1.Label(r.ref)}},
				}}}},
			},
		})
	}
	return policies
}

// deployment is the replicas of a group.
func (r *rendering) deployment(w rollout.Want, s spillway.Service) (*appsv1.Deployment, error) {
	pod, err := r.pod(w, s)
	if err != nil {
		return nil, err
	}
	r.keepPulls("Deployment/"+groupName(r.ref, w.Group), &pod)
	replicas, history := int32(w.Replicas), int32(0) // releases are ours to keep
	size := w.Replicas
	if w.Scaling.Max > 0 {
		size = s.Scale // what follows from it does not change whenever the autoscaler does something
	}
	d := &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: r.meta(groupName(r.ref, w.Group), pod.Labels),
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, RevisionHistoryLimit: &history, Strategy: strategyOf(s, size),
			Selector: &metav1.LabelSelector{MatchLabels: selector(r.ref, w.Group)}, Template: pod,
		},
	}
	if r.askedAt(w) != "" {
		r.annotate(d, map[string]string{publicAnnotation: "true"})
	}
	return d, nil
}

// strategyOf is how replicas of one group are replaced by a restart. How a release replaces another is not the
// Deployment's business: that is another Deployment.
func strategyOf(s spillway.Service, replicas int) appsv1.DeploymentStrategy {
	if s.Strategy == spillway.Recreate {
		return appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	}
	unavailable, surge := intstr.FromInt32(int32(min(s.Unavailable.Of(replicas), replicas))), intstr.FromInt32(1)
	return appsv1.DeploymentStrategy{
		Type:          appsv1.RollingUpdateDeploymentStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable},
	}
}

// job is a release command.
func (r *rendering) job(t rollout.Task) (*batchv1.Job, error) {
	s, ok := r.releases[t.Release].Config.Service(t.Service)
	if !ok {
		return nil, fmt.Errorf("release %d has no service %s: %w", t.Release, t.Service, spillway.ErrNotFound)
	}
	group, _ := r.releases[t.Release].Group(t.Service)
	pod, err := r.taskPod(t, group, s)
	if err != nil {
		return nil, err
	}
	r.keepPulls("Job/"+taskName(r.ref, t), &pod)
	once, limit := int32(0), max(int64(t.Limit)/1e9, 1)
	job := &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: r.meta(taskName(r.ref, t), pod.Labels),
		Spec:       batchv1.JobSpec{BackoffLimit: &once, ActiveDeadlineSeconds: &limit, Template: pod},
	}
	text, err := json.Marshal(t)
	if err != nil {
		panic(err) // a task is strings and numbers
	}
	r.annotate(job, map[string]string{taskAnnotation: string(text)})
	return job, nil
}

// taskAnnotation is the rollout.Task of a Job as JSON.
const taskAnnotation = "spillway.dev/task"

func taskName(ref spillway.Ref, t rollout.Task) string {
	return Name(ref, t.Service, strconv.Itoa(t.Release), "task", strconv.FormatInt(t.Rollout, 10))
}
