package kube

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// The names of what an installation has in its namespace.
const (
	serverName = "spillway"
	tokenName  = "spillway-token"
	serverDir  = "/var/lib/spillway"
	serverPort = 7300
	serverUser = 65532
)

// The keys of the Secret spillway-token.
const (
	TokenKey  = "token"       // what a client shows
	TokensKey = "tokens.json" // what the server knows of it, as in its state directory
)

// Server is a Spillway server as it is installed in a namespace.
type Server struct {
	Namespace string
	Gateway   Gateway
	Image     string // whose entry point is the program spillway; "" = no server
	// Base is the image that Image was made upon, so that the next is too; Architecture is that of the nodes that it runs
	// on. "" = it has none, or it is not known.
	Base, Architecture string
	Replicas           int
	// Flags of the server beyond --kubernetes and --namespace: "--gateway=edge/public".
	Flags []string
	// Token is what a Secret gets that is not there yet, by TokenKey and TokensKey.
	Token map[string][]byte
}

// objects are those of a server, in the order in which they are made; none without an image.
func (s Server) objects() []client.Object {
	if s.Image == "" {
		return nil
	}
	one := intstr.FromInt32(1)
	return slices.Concat([]client.Object{
		&corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: s.meta(serverName, s.Namespace)},
	}, s.rights(serverName, s.Namespace), s.gatewayRights(), []client.Object{
		&corev1.Secret{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: s.meta(tokenName, s.Namespace),
			Type: corev1.SecretTypeOpaque, Immutable: new(true), Data: s.Token,
		},
		&policyv1.PodDisruptionBudget{
			TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, ObjectMeta: s.meta(serverName, s.Namespace),
			Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: serverSelector(s.Namespace)}},
		},
		s.deployment(),
	})
}

// serverLabel tells which namespace's server an object is of, as some of its objects are in another one.
const serverLabel = "spillway.dev/server"

// baseAnnotation names what an image of a server that is made is put upon.
const baseAnnotation = "spillway.dev/server-base"

func serverSelector(namespace string) map[string]string {
	return map[string]string{serverLabel: namespace}
}

func (s Server) meta(name, namespace string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{
		"app.kubernetes.io/name": serverName, ManagedBy: Manager, serverLabel: s.Namespace,
	}}
}

// rights are a Role with what the server needs in a namespace, and who has it.
func (s Server) rights(name, namespace string) []client.Object {
	role := &rbacv1.Role{TypeMeta: metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "Role"}, ObjectMeta: s.meta(name, namespace)}
	for _, r := range Rights(s.Gateway, s.services()...) {
		in := r.Namespace
		if in == "" {
			in = s.Namespace
		}
		if in == namespace {
			rule := rbacv1.PolicyRule{APIGroups: []string{r.Group}, Resources: []string{r.Resource}, Verbs: r.Verbs}
			if r.Name != "" {
				rule.ResourceNames = []string{r.Name}
			}
			role.Rules = append(role.Rules, rule)
		}
	}
	if s.pullSecret() != "" && namespace == s.Namespace { // it has it mounted, and doctor tells whether it is there
		role.Rules = append(role.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}, ResourceNames: []string{s.pullSecret()}})
	}
	return []client.Object{role, &rbacv1.RoleBinding{
		TypeMeta: metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"}, ObjectMeta: s.meta(name, namespace),
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: serverName, Namespace: s.Namespace}},
	}}
}

// gatewayRights are what the server may do in the namespaces of its gateway and of its gateway's instances, as far as they
// are others.
func (s Server) gatewayRights() (all []client.Object) {
	namespaces := []string{s.Gateway.Namespace}
	if s.Gateway.Name == "" {
		namespaces = nil
	}
	for _, n := range s.services() {
		namespaces = append(namespaces, n.Namespace)
	}
	slices.Sort(namespaces)
	for _, n := range slices.Compact(namespaces) {
		if n != s.Namespace {
			all = append(all, s.rights(serverName+"-"+s.Namespace, n)...)
		}
	}
	return all
}

// services are those that the flags of the server name as instances of the gateway, beyond its own namespace. What cannot
// be read is none: the server refuses it.
func (s Server) services() []ServiceName {
	var p Places
	for _, flag := range s.Flags {
		if list, ok := strings.CutPrefix(flag, "--gateway-metrics="); ok {
			p.Metrics = strings.Split(list, ",")
		}
		if list, ok := strings.CutPrefix(flag, "--gateway-instances="); ok {
			p.HTTP = strings.Split(list, ",")
		}
	}
	all, _ := p.Services()
	return slices.DeleteFunc(all, func(n ServiceName) bool { return n.Namespace == s.Namespace })
}

// firstArgs begin the arguments of a server.
func (s Server) firstArgs() []string {
	return []string{"server", "--kubernetes", "--namespace=" + s.Namespace, fmt.Sprintf("--listen=127.0.0.1:%d", serverPort)}
}

// deployment runs the server. Its API listens on the loopback of its pod alone: clients come by the API server, which
// forwards to it whom it lets (pods/portforward), and show the token of the Secret.
func (s Server) deployment() *appsv1.Deployment {
	replicas, none, one := int32(s.Replicas), intstr.FromInt32(0), intstr.FromInt32(1)
	grace := int64(30)
	var nodes map[string]string
	if s.Architecture != "" {
		nodes = map[string]string{architectureLabel: s.Architecture, osLabel: "linux"}
	}
	named := s.meta(serverName, s.Namespace)
	if s.Base != "" {
		named.Annotations = map[string]string{baseAnnotation: s.Base}
	}
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: named,
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: serverSelector(s.Namespace)},
			MinReadySeconds: 5, // it ends by itself when it cannot work
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none, MaxSurge: &one},
			},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: s.meta("", "").Labels}, Spec: corev1.PodSpec{
				ServiceAccountName: serverName, NodeSelector: nodes, ImagePullSecrets: pullSecrets(s.pullSecret()), EnableServiceLinks: new(false), TerminationGracePeriodSeconds: &grace,
				SecurityContext: &corev1.PodSecurityContext{
					RunAsNonRoot: new(true), RunAsUser: new(int64(serverUser)), RunAsGroup: new(int64(serverUser)), FSGroup: new(int64(serverUser)),
					SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				},
				TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
					MaxSkew: 1, TopologyKey: "kubernetes.io/hostname", WhenUnsatisfiable: corev1.ScheduleAnyway,
					LabelSelector: &metav1.LabelSelector{MatchLabels: serverSelector(s.Namespace)},
				}},
				Containers: []corev1.Container{s.container()},
				Volumes: append(s.credentials(), []corev1.Volume{
					{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
					{Name: "temporary", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
					{Name: "tokens", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
						SecretName: tokenName, DefaultMode: new(int32(0o440)), Items: []corev1.KeyToPath{{Key: TokensKey, Path: TokensKey}},
					}}},
				}...),
			}},
		},
	}
}

// pullSecret is the Secret by which nodes pull images; "" = there is none.
func (s Server) pullSecret() string { return s.flag("registry-secret") }

// flag is the value of a flag; "" when it is not among them.
func (s Server) flag(name string) string {
	for _, flag := range s.Flags {
		if value, ok := strings.CutPrefix(flag, "--"+name+"="); ok {
			return value
		}
	}
	return ""
}

// dockerDir is where the server finds the credentials of registries, as docker keeps them.
const dockerDir = "/var/run/spillway/docker"

// credentials are the volume with them; none without --registry-secret.
func (s Server) credentials() []corev1.Volume {
	if s.pullSecret() == "" {
		return nil
	}
	return []corev1.Volume{{Name: "registry", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: s.pullSecret(), DefaultMode: new(int32(0o440)), Items: []corev1.KeyToPath{{Key: corev1.DockerConfigJsonKey, Path: "config.json"}},
	}}}}
}

func (s Server) container() corev1.Container {
	c := corev1.Container{
		Name: serverName, Image: s.Image, Args: append(s.firstArgs(), s.Flags...),
		Env: []corev1.EnvVar{{Name: "SPILLWAY_DIR", Value: serverDir}, {Name: "HOME", Value: "/tmp"}, {Name: "TMPDIR", Value: "/tmp"}},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
		}},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		VolumeMounts: []corev1.VolumeMount{
			{Name: "state", MountPath: serverDir},
			{Name: "temporary", MountPath: "/tmp"},
			{Name: "tokens", MountPath: serverDir + "/" + TokensKey, SubPath: TokensKey, ReadOnly: true},
		},
	}
	for _, v := range s.credentials() {
		c.Env = append(c.Env, corev1.EnvVar{Name: "DOCKER_CONFIG", Value: dockerDir})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: dockerDir, ReadOnly: true})
	}
	return c
}

// serverOf reads a server back from its Deployment.
func serverOf(d *appsv1.Deployment) (Server, error) {
	s := Server{Namespace: d.Namespace, Replicas: 1}
	if d.Labels[ManagedBy] != Manager || d.Labels[serverLabel] == "" || len(d.Spec.Template.Spec.Containers) == 0 {
		return s, fmt.Errorf("there is a Deployment %s in namespace %s that Spillway did not make, and it is left alone; rename it, or use another namespace: %w", d.Name, d.Namespace, spillway.ErrConflict)
	}
	c := d.Spec.Template.Spec.Containers[0]
	s.Image, s.Base, s.Architecture = c.Image, d.Annotations[baseAnnotation], d.Spec.Template.Spec.NodeSelector[architectureLabel]
	if d.Spec.Replicas != nil {
		s.Replicas = int(*d.Spec.Replicas)
	}
	s.Flags = slices.Clone(c.Args[min(len(c.Args), len(s.firstArgs())):])
	for _, flag := range s.Flags {
		if at, ok := strings.CutPrefix(flag, "--gateway="); ok {
			parts := append(strings.Split(at, "/"), "", "")
			s.Gateway = Gateway{Namespace: parts[0], Name: parts[1], Section: parts[2]}
		}
	}
	return s, nil
}

// definitionsOf are the definitions of our resources as objects.
func definitionsOf(appFile []byte) ([]client.Object, error) {
	definitions, err := v1alpha1.Definitions(appFile)
	var objects []client.Object
	for _, d := range definitions {
		objects = append(objects, d)
	}
	return objects, err
}

// PrintInstallation writes what Install applies, as YAML.
func PrintInstallation(w io.Writer, appFile []byte, s Server) error {
	definitions, err := definitionsOf(appFile)
	if err != nil {
		return err
	}
	return writeYAML(w, slices.Concat(definitions, s.objects()), func(o client.Object) string {
		if _, secret := o.(*corev1.Secret); secret {
			return "# The token of the server, made for this output alone. Keep it out of repositories."
		}
		return ""
	})
}

// writeYAML writes objects as documents, each with what comment says of it.
func writeYAML(w io.Writer, objects []client.Object, comment func(client.Object) string) error {
	var all bytes.Buffer
	for _, o := range objects {
		u, err := plain(o)
		if err != nil {
			return err
		}
		text, err := yaml.Marshal(u.Object)
		if err != nil {
			return err
		}
		all.WriteString("---\n")
		if c := comment(o); c != "" {
			all.WriteString(c + "\n")
		}
		all.Write(text)
	}
	_, err := w.Write(all.Bytes())
	return err
}

// plain is an object as it is applied, without what only the API server writes.
func plain(o client.Object) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, err
	}
	delete(fields, "status")
	prune(fields)
	return &unstructured.Unstructured{Object: fields}, nil
}
