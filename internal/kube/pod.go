package kube

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// pod is the template of the replicas of a group. It depends on nothing that Release.Fingerprint does not have,
// but for the group, restarts and the protocol of who drains shortly: a release that did not change the service must not
// restart it.
func (r *rendering) pod(w rollout.Want, s spillway.Service) (corev1.PodTemplateSpec, error) {
	track := r.trackOf(w)
	c, err := r.container(w.Release, w.Group, s, track)
	if err != nil {
		return corev1.PodTemplateSpec{}, err
	}
	if len(c.Ports) > 0 { // what nobody connects to is ready when it runs
		c.StartupProbe, c.ReadinessProbe, c.LivenessProbe = probes(s)
	}
	drain := max(seconds(s.Stop.Drain), withdrawal(s))
	c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: drain}}}
	grace := drain + max(seconds(s.Stop.Grace), 1)
	all := labels(r.ref, w.Group)
	all[TrackLabel] = track
	pod := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: all, Annotations: marks(r.ref)}, Spec: r.podSpec(c, grace)}
	pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: "kubernetes.io/hostname", WhenUnsatisfiable: corev1.ScheduleAnyway,
		LabelSelector: &metav1.LabelSelector{MatchLabels: selector(r.ref, w.Group)},
	}}
	if w.Restart > 0 {
		r.annotate(&pod, map[string]string{restartAnnotation: strconv.FormatInt(w.Restart, 10)})
	}
	return pod, nil
}

// withdrawal is how many seconds a replica has to serve, however short its drain is, because others still lead to it: nodes
// hear at once that it leaves, gateways later (Traefik: up to 2 s). It is never 0, which API servers before 1.33 refuse.
func withdrawal(s spillway.Service) int64 {
	if s.Protocol == spillway.TCP { // no gateway leads there
		return 1
	}
	return 3
}

// taskPod is the template of a release command. It has none of the labels by which Services find replicas.
func (r *rendering) taskPod(t rollout.Task, g spillway.Group, s spillway.Service) (corev1.PodTemplateSpec, error) {
	c, err := r.container(t.Release, g, s, cmp.Or(r.releases[t.Release].Track, spillway.StableTrack))
	if err != nil {
		return corev1.PodTemplateSpec{}, err
	}
	c.Command, c.Args = commandOf(s, s.Release), nil
	c.Ports = nil
	c.Env = append(c.Env, corev1.EnvVar{Name: "SPILLWAY_TASK", Value: "release"})
	spec := r.podSpec(c, max(seconds(s.Stop.Grace), 1))
	spec.RestartPolicy = corev1.RestartPolicyNever
	all := own(r.ref)
	all["spillway.dev/task"] = t.Service
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: all, Annotations: marks(r.ref)}, Spec: spec}, nil
}

func (r *rendering) podSpec(c corev1.Container, grace int64) corev1.PodSpec {
	no := false
	return corev1.PodSpec{
		ImagePullSecrets: pullSecrets(r.pullSecret),
		Containers:       []corev1.Container{c}, TerminationGracePeriodSeconds: &grace,
		AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
		SecurityContext: &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
	}
}

// pullSecrets name the Secret by which nodes pull images; "" = there is none.
func pullSecrets(name string) []corev1.LocalObjectReference {
	if name == "" {
		return nil
	}
	return []corev1.LocalObjectReference{{Name: name}}
}

// trackOf names the track that a group was made for.
func (r *rendering) trackOf(w rollout.Want) string {
	if track := r.tracks[w.Group]; track != "" {
		return track
	}
	if release := r.releases[w.Release]; release.Number == w.Group.Release {
		return cmp.Or(release.Track, spillway.StableTrack)
	}
	return spillway.StableTrack
}

// container is the program of a service, without probes.
func (r *rendering) container(number int, g spillway.Group, s spillway.Service, track string) (corev1.Container, error) {
	release := r.releases[number]
	image := release.Artefacts[s.Name].Image
	if image == "" {
		return corev1.Container{}, fmt.Errorf("release %d has no image of service %s: it was made for one machine; deploy it again with this server: %w", number, s.Name, spillway.ErrInvalid)
	}
	no := false
	c := corev1.Container{
		Name: s.Name, Image: image, Command: commandOf(s, s.Run), Env: r.env(release, g, s, track), Resources: resources(s.Limits),
		SecurityContext:          &corev1.SecurityContext{AllowPrivilegeEscalation: &no},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
	if port := s.ContainerPort(); port != 0 {
		c.Ports = []corev1.ContainerPort{{Name: portName, ContainerPort: int32(port), Protocol: corev1.ProtocolTCP}}
	}
	return c, nil
}

// env are the variables of a replica, sorted but for PORT and HOST, which others may refer to. Later ones win,
// as on one machine.
func (r *rendering) env(release spillway.Release, g spillway.Group, s spillway.Service, track string) []corev1.EnvVar {
	env := map[string]string{}
	for _, need := range s.Needs {
		name := strings.ToUpper(strings.ReplaceAll(need, "-", "_"))
		host := edgeName(r.ref, g, need)
		scheme := "http"
		if peer, _ := release.Config.Service(need); peer.Protocol == spillway.TCP {
			scheme = "tcp"
		}
		env[name+"_HOST"], env[name+"_PORT"] = host, strconv.Itoa(servicePort)
		env[name+"_URL"] = fmt.Sprintf("%s://%s:%d", scheme, host, servicePort)
	}
	maps.Copy(env, s.Env)
	app, _, _ := strings.Cut(string(r.ref), "@")
	maps.Copy(env, map[string]string{
		"SPILLWAY_APP": app, "SPILLWAY_ENVIRONMENT": environment(r.ref), "SPILLWAY_SERVICE": s.Name,
		"SPILLWAY_TRACK": track, "SPILLWAY_RELEASE": strconv.Itoa(g.Release),
	})
	list := []corev1.EnvVar{
		{Name: "HOST", Value: "0.0.0.0"}, {Name: "PORT", Value: strconv.Itoa(s.ContainerPort())}, // the first, so that all others may refer to them
		{Name: "SPILLWAY_REPLICA", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}},
	}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, corev1.EnvVar{Name: k, Value: strings.ReplaceAll(env[k], "$", "$$")}) // values are text, not references
	}
	return list
}

// resources are the limits of a replica; Kubernetes takes them for what it asks for too.
func resources(l spillway.Limits) corev1.ResourceRequirements {
	list := corev1.ResourceList{}
	if l.CPU > 0 {
		list[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(l.CPU), resource.DecimalSI)
	}
	if l.Memory > 0 {
		list[corev1.ResourceMemory] = *resource.NewQuantity(int64(l.Memory), resource.BinarySI)
	}
	if len(list) == 0 {
		return corev1.ResourceRequirements{}
	}
	return corev1.ResourceRequirements{Limits: list}
}

// probes say when a replica is ready and when it is restarted, as on one machine: until its first good answer it
// has Probe.Start; a failure takes it out of its Services first, twice as many restart it.
func probes(s spillway.Service) (startup, readiness, liveness *corev1.Probe) {
	h := cmp.Or(s.Health, spillway.DefaultProbe())
	handler := corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString(portName)}}
	if h.Path != "" && (s.Protocol == "" || s.Protocol == spillway.HTTP) { // a kubelet speaks HTTP/1.1 only
		handler = corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: h.Path, Port: intstr.FromString(portName), Scheme: corev1.URISchemeHTTP}}
	}
	probe := func(period, failures, successes int) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler: handler, PeriodSeconds: int32(max(period, 1)), TimeoutSeconds: int32(max(seconds(h.Timeout), 1)),
			FailureThreshold: int32(max(failures, 1)), SuccessThreshold: int32(max(successes, 1)),
		}
	}
	period := int(seconds(h.Interval))
	return probe(1, int(seconds(h.Start)), 1), probe(period, h.Unhealthy, h.Healthy), probe(period, 2*h.Unhealthy, 1)
}

// seconds rounds up.
func seconds(d spillway.Duration) int64 {
	return int64((time.Duration(d) + time.Second - 1) / time.Second)
}

// commandOf is what a container runs instead of its image's own; nil = that. What needs no shell is run without one;
// its variables are references then, which the kubelet puts in.
func commandOf(s spillway.Service, c spillway.Command) []string {
	if c.Zero() {
		return nil
	}
	if words, problem := s.Words(c); problem == "" {
		return words
	}
	if len(c.Exec) > 0 {
		return slices.Clone(c.Exec)
	}
	return []string{"/bin/sh", "-c", c.Shell}
}
