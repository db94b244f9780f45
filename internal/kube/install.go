package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// definedWithin is how long the API server may take for a new kind of resource.
const definedWithin = 30 * time.Second

// Installer puts servers into a cluster, and takes them away. It acts with the rights of who runs it.
type Installer struct {
	client client.Client
	host   string
	tell   func(format string, args ...any)
}

// NewInstaller makes one for a cluster. tell is called for every object that is there in the end, and for every
// one that is gone.
func NewInstaller(c *rest.Config, tell func(format string, args ...any)) (*Installer, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	live, err := client.New(c, client.Options{Scheme: scheme})
	if err != nil {
		return nil, explain("connect to the cluster", err)
	}
	return &Installer{client: live, host: c.Host, tell: tell}, nil
}

// mayNot says more of an error of the cluster when it is the person's rights that lack.
func mayNot(what string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s: you may not: %w: %w; ask who looks after the cluster, who can read what it is before: spillway kube install --print", what, spillway.ErrDenied, err)
	}
	return explain(what, err)
}

// Installed is the server of a namespace as it is there. ErrNotFound when there is none.
func (i *Installer) Installed(ctx context.Context, namespace string) (Server, error) {
	var d appsv1.Deployment
	err := i.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: serverName}, &d)
	switch {
	case apierrors.IsNotFound(err):
		return Server{}, fmt.Errorf("there is no Spillway server in namespace %s: %w", namespace, spillway.ErrNotFound)
	case err != nil:
		return Server{}, mayNot("look for the server in namespace "+namespace, err)
	}
	return serverOf(&d)
}

// Install applies the definitions and, when the server has an image, the server. What is there and is not of an
// installation is left alone: ErrConflict. It does the same however often it is called.
func (i *Installer) Install(ctx context.Context, appFile []byte, s Server) error {
	definitions, err := definitionsOf(appFile)
	if err != nil {
		return err
	}
	objects := s.objects()
	if s.Image != "" {
		if err := i.checkPlace(ctx, s); err != nil {
			return err
		}
	}
	for _, o := range slices.Concat(definitions, objects) { // all before the first is written
		if _, err := i.ours(ctx, o); err != nil {
			return err
		}
	}
	for _, o := range definitions {
		if err := i.apply(ctx, o); err != nil {
			return err
		}
	}
	for _, o := range definitions {
		if err := i.established(ctx, o.GetName()); err != nil {
			return err
		}
	}
	if s.Image == "" {
		return nil
	}
	before, err := i.Installed(ctx, s.Namespace)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return err
	}
	for _, o := range objects {
		if err := i.apply(ctx, o); err != nil {
			return err
		}
	}
	return i.removeAll(ctx, without(before.gatewayRights(), objects))
}

// without are the objects whose names others do not have.
func without(objects, others []client.Object) []client.Object {
	id := func(o client.Object) string { return key(o) + " " + o.GetNamespace() }
	return slices.DeleteFunc(objects, func(o client.Object) bool {
		return slices.ContainsFunc(others, func(other client.Object) bool { return id(o) == id(other) })
	})
}

// checkPlace looks for what has to be there before: the namespace, the Secret of the registry, and the gateway with its kind.
func (i *Installer) checkPlace(ctx context.Context, s Server) error {
	err := i.client.Get(ctx, client.ObjectKey{Name: s.Namespace}, &corev1.Namespace{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no namespace %s at %s; make it first: kubectl create namespace %s: %w", s.Namespace, i.host, s.Namespace, spillway.ErrInvalid)
	}
	if err != nil && !apierrors.IsForbidden(err) { // who may not see it may still write into it
		return explain("look for namespace "+s.Namespace, err)
	}
	for _, n := range s.services() {
		err := i.client.Get(ctx, client.ObjectKey{Name: n.Namespace}, &corev1.Namespace{})
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("there is no namespace %s, in which a flag says that the Service %s of the gateway is; a name that is none of a Service ends with a dot: %s.%s.: %w", n.Namespace, n.Name, n.Name, n.Namespace, spillway.ErrInvalid)
		}
	}
	if err := i.checkPullSecret(ctx, s); err != nil {
		return err
	}
	if s.Gateway.Name == "" {
		return nil
	}
	gateway := &unstructured.Unstructured{}
	gateway.SetAPIVersion("gateway.networking.k8s.io/v1")
	gateway.SetKind("Gateway")
	err = i.client.Get(ctx, client.ObjectKey{Namespace: s.Gateway.Namespace, Name: s.Gateway.Name}, gateway)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("there is no gateway %s/%s; kubectl get gateways -A tells which there are: %w", s.Gateway.Namespace, s.Gateway.Name, spillway.ErrInvalid)
	case meta.IsNoMatchError(err):
		return fmt.Errorf("the cluster does not know the kind Gateway, and %s/%s is to be used; install the Gateway API's standard channel first: %w", s.Gateway.Namespace, s.Gateway.Name, spillway.ErrUnavailable)
	case err != nil && !apierrors.IsForbidden(err):
		return explain("look for gateway "+s.Gateway.Namespace+"/"+s.Gateway.Name, err)
	}
	return nil
}

// ours gives the version of an object that is there, "" when none is. ErrConflict when it is somebody else's.
func (i *Installer) ours(ctx context.Context, o client.Object) (string, error) {
	there := &metav1.PartialObjectMetadata{}
	there.SetGroupVersionKind(o.GetObjectKind().GroupVersionKind())
	err := i.client.Get(ctx, client.ObjectKeyFromObject(o), there)
	switch {
	case apierrors.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", mayNot("look for "+called(o), err)
	}
	for name, value := range o.GetLabels() {
		if there.Labels[name] == value {
			continue
		}
		return "", fmt.Errorf("there is a %s that Spillway did not make, and it is left alone; nothing was changed. Rename it, or let it be taken over: kubectl label --overwrite %s %s%s: %w",
			called(o), strings.ToLower(o.GetObjectKind().GroupVersionKind().Kind), o.GetName(), inNamespace(o)+labelsOf(o), spillway.ErrConflict)
	}
	return there.ResourceVersion, nil
}

// called names an object to a person: "Role spillway in namespace shop".
func called(o client.Object) string {
	name := o.GetObjectKind().GroupVersionKind().Kind + " " + o.GetName()
	if o.GetNamespace() != "" {
		name += " in namespace " + o.GetNamespace()
	}
	return name
}

func inNamespace(o client.Object) string {
	if o.GetNamespace() == "" {
		return ""
	}
	return " -n " + o.GetNamespace()
}

func labelsOf(o client.Object) string {
	var b strings.Builder
	for _, name := range sortedKeys(o.GetLabels()) {
		fmt.Fprintf(&b, " %s=%s", name, o.GetLabels()[name])
	}
	return b.String()
}

// apply makes an object be there as it is wanted. A Secret that is there stays: clients know its token.
func (i *Installer) apply(ctx context.Context, o client.Object) error {
	before, err := i.ours(ctx, o)
	if err != nil {
		return err
	}
	if _, secret := o.(*corev1.Secret); secret && before != "" {
		i.tell("%s is kept", called(o))
		return nil
	}
	u, err := plain(o)
	if err != nil {
		return err
	}
	if err := i.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(Manager), client.ForceOwnership); err != nil {
		return mayNot("apply "+called(o), err)
	}
	switch u.GetResourceVersion() {
	case before:
		i.tell("%s is as it was", called(o))
	default:
		i.tell("%s %s", called(o), map[bool]string{true: "is new", false: "is changed"}[before == ""])
	}
	return nil
}

// established waits until the API server serves a definition.
func (i *Installer) established(ctx context.Context, name string) error {
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	why := ""
	return i.until(ctx, definedWithin, func() string { return "the API server does not serve " + name + why }, func() (bool, error) {
		if err := i.client.Get(ctx, client.ObjectKey{Name: name}, crd); err != nil {
			return false, mayNot("look for "+name, err)
		}
		conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
		for _, c := range conditions {
			c, _ := c.(map[string]any)
			if c["type"] == "Established" && c["status"] == "True" {
				return true, nil
			}
			if c["status"] == "False" {
				why = fmt.Sprintf(" (%s: %s)", c["type"], c["message"])
			}
		}
		return false, nil
	})
}

// until asks again and again until it is done, for some time.
func (i *Installer) until(ctx context.Context, within time.Duration, not func() string, done func() (bool, error)) error {
	limit, tick := time.NewTimer(within), time.NewTicker(200*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("%s after %s: %w", not(), within, spillway.ErrUnavailable)
		case <-tick.C:
		}
	}
}

// Await waits until the server of a namespace runs as it was applied, and says what keeps it from that.
func (i *Installer) Await(ctx context.Context, namespace string, within time.Duration) error {
	not := func() string {
		return "the server does not run" + i.problems(ctx, namespace) + "; see: kubectl logs -n " + namespace + " deployment/" + serverName + "; it is not ready"
	}
	return i.until(ctx, within, not, func() (bool, error) {
		var d appsv1.Deployment
		if err := i.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: serverName}, &d); err != nil {
			return false, mayNot("look for the server", err)
		}
		want := *cmp.Or(d.Spec.Replicas, new(int32(1)))
		s := d.Status
		return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.AvailableReplicas >= want && s.Replicas == want, nil
	})
}

// problems is what is wrong with the pods of the server: " (spillway-1-2: cannot pull …)"; "" when nothing is.
func (i *Installer) problems(ctx context.Context, namespace string) string {
	var pods corev1.PodList
	if err := i.client.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels(serverSelector(namespace))); err != nil {
		return ""
	}
	for n := range pods.Items {
		if problem, _ := podProblem(&pods.Items[n]); problem != "" {
			if imageProblem(&pods.Items[n]) != "" {
				problem = strings.TrimSuffix(problem, deployAgain) + "; name another image: --image IMAGE, or have one made of this program: spillway kube upgrade --namespace " + namespace
			}
			return fmt.Sprintf(" (%s: %s)", pods.Items[n].Name, problem)
		}
	}
	return ""
}

// ImageProblem says what keeps a server from running with the image that it has; "" where a pod of it is ready, or
// nothing is known against the image.
func (i *Installer) ImageProblem(ctx context.Context, s Server) (problem string) {
	var pods corev1.PodList
	if err := i.client.List(ctx, &pods, client.InNamespace(s.Namespace), client.MatchingLabels(serverSelector(s.Namespace))); err != nil {
		return "" // what comes next says it
	}
	for n := range pods.Items {
		pod := &pods.Items[n]
		if len(pod.Spec.Containers) == 0 || pod.Spec.Containers[0].Image != s.Image {
			continue
		}
		if ready(pod) {
			return ""
		}
		problem = cmp.Or(problem, imageProblem(pod))
	}
	return problem
}

// Apps names the apps of a namespace, of all of the cluster with "": "shop/castle".
func (i *Installer) Apps(ctx context.Context, namespace string) ([]string, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("AppList"))
	err := i.client.List(ctx, list, client.InNamespace(namespace))
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, mayNot("look for apps", err)
	}
	var names []string
	for _, app := range list.Items {
		names = append(names, app.Namespace+"/"+app.Name)
	}
	return names, nil
}

// Uninstall removes the server of a namespace, when its pods have gone what they are allowed. Apps go on serving: see
// Leave.
func (i *Installer) Uninstall(ctx context.Context, namespace string, within time.Duration) error {
	s, err := i.Installed(ctx, namespace)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return err
	}
	s.Namespace, s.Image = namespace, cmp.Or(s.Image, "none")
	objects := s.objects()
	slices.Reverse(objects)
	if err := i.removeAll(ctx, objects[:1]); err != nil { // the Deployment: its pods give their lease back
		return err
	}
	err = i.until(ctx, within, func() string { return "pods of the server are still ending" }, func() (bool, error) {
		var pods corev1.PodList
		err := i.client.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels(serverSelector(namespace)))
		return len(pods.Items) == 0, mayNot("look for the pods of the server", err)
	})
	if err != nil {
		return err
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: leaseName}}
	if err := i.client.Delete(ctx, lease); err != nil && !apierrors.IsNotFound(err) {
		return mayNot("delete the lease of the server", err)
	}
	if err := i.Leave(ctx, namespace); err != nil {
		return err
	}
	if err := i.removeAll(ctx, objects[1:]); err != nil {
		return err
	}
	elsewhere, err := i.rightsOf(ctx, namespace)
	if err != nil {
		return err
	}
	return i.removeAll(ctx, without(elsewhere, objects))
}

// rightsOf are the rights that there are of the server of a namespace, in every namespace: without its Deployment, as after
// an uninstall that was broken off, nobody else knows where. Who may not look into all namespaces sees none.
func (i *Installer) rightsOf(ctx context.Context, namespace string) (all []client.Object, err error) {
	for _, kind := range []string{"RoleBinding", "Role"} {
		list, err := i.list(ctx, "", rbacv1.SchemeGroupVersion.WithKind(kind), client.MatchingLabels{ManagedBy: Manager, serverLabel: namespace})
		if err != nil && !errors.Is(err, spillway.ErrDenied) {
			return nil, err
		}
		for n := range list {
			all = append(all, &list[n])
		}
	}
	return all, nil
}

// Undefine removes the definitions, and with them every App and Release of the cluster. ErrConflict while there are apps.
func (i *Installer) Undefine(ctx context.Context, appFile []byte) error {
	apps, err := i.Apps(ctx, "")
	if err != nil {
		return err
	}
	if len(apps) > 0 {
		return fmt.Errorf("the definitions hold the history of all apps of the cluster, and there are %s; destroy them first: spillway destroy -a NAME: %w", strings.Join(apps, ", "), spillway.ErrConflict)
	}
	definitions, err := definitionsOf(appFile)
	if err != nil {
		return err
	}
	return i.removeAll(ctx, definitions)
}

// removeAll deletes what is ours of objects.
func (i *Installer) removeAll(ctx context.Context, objects []client.Object) error {
	for _, o := range objects {
		version, err := i.ours(ctx, o)
		if errors.Is(err, spillway.ErrConflict) {
			i.tell("%s is not of Spillway and stays", called(o))
			continue
		}
		if err != nil {
			return err
		}
		if version == "" {
			continue
		}
		err = i.client.Delete(ctx, o, client.PropagationPolicy(metav1.DeletePropagationForeground))
		if err != nil && !apierrors.IsNotFound(err) {
			return mayNot("delete "+called(o), err)
		}
		i.tell("%s is gone", called(o))
	}
	return nil
}
