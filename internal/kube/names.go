package kube

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// Labels and annotations of what the platform makes. A value of AppLabel is v1alpha1.Label.
const (
	ManagedBy = "app.kubernetes.io/managed-by"
	Manager   = v1alpha1.Manager // value of ManagedBy, and the field manager of every write

	AppLabel     = v1alpha1.AppLabel
	ServiceLabel = "spillway.dev/service"
	ReleaseLabel = "spillway.dev/release" // of a group: the release that changed the service
	TrackLabel   = "spillway.dev/track"

	edgeAnnotation       = "spillway.dev/edge"       // spillway.Edge as JSON, of a route or of the Service of a private edge
	generationAnnotation = "spillway.dev/generation" // spillway.Route.Generation that the object is a part of
	printAnnotation      = "spillway.dev/applied"    // what was applied, as a sum: the same need not be applied again
	refAnnotation        = "spillway.dev/ref"        // of an app whose ref is too long for a label
	restartAnnotation    = "spillway.dev/restart"
)

// maxName is the longest name of a Service (RFC 1035 label).
const maxName = 63

// Name joins parts to a name of an object: "castle-www-4". One that is too long, or that other parts could be joined
// to as well ("my-shop" and "www" to the same as "my" and "shop-www"), ends in a sum of the parts.
func Name(ref spillway.Ref, parts ...string) string {
	app := strings.Replace(string(ref), "@", "--", 1)
	parts = append([]string{app}, parts...)
	name := strings.Join(parts, "-")
	if len(name) <= maxName && strings.Count(name, "-") == len(parts)-1 {
		return name
	}
	parts[0] = string(ref)
	return fmt.Sprintf("%s-%.4x", strings.TrimRight(name[:min(len(name), maxName-9)], "-"), sha256.Sum256([]byte(strings.Join(parts, "/"))))
}

// refOf is the app that an object belongs to; "" when it says none.
func refOf(o client.Object) spillway.Ref {
	return spillway.Ref(cmp.Or(o.GetAnnotations()[refAnnotation], string(v1alpha1.RefOf(o.GetLabels()[AppLabel]))))
}

// groupName is the name of the Deployment and the Service of a group.
func groupName(ref spillway.Ref, g spillway.Group) string {
	return Name(ref, g.Service, strconv.Itoa(g.Release))
}

// reachName is the name of the HTTPRoute by which a gateway is asked for a group.
func reachName(ref spillway.Ref, g spillway.Group) string {
	return Name(ref, g.Service, strconv.Itoa(g.Release), "reach")
}

// edgeName is the name of the Service by which a group reaches what it needs: "castle-www-4-backend".
func edgeName(ref spillway.Ref, from spillway.Group, service string) string {
	return Name(ref, from.Service, strconv.Itoa(from.Release), service)
}

// marks are the annotations by which refOf finds the app again where its label is not enough.
func marks(ref spillway.Ref) map[string]string {
	if v1alpha1.RefOf(v1alpha1.Label(ref)) == ref {
		return nil
	}
	return map[string]string{refAnnotation: string(ref)}
}

// own are the labels of everything that belongs to an app.
func own(ref spillway.Ref) map[string]string {
	return map[string]string{ManagedBy: Manager, AppLabel: v1alpha1.Label(ref)}
}

// selector are the labels that the replicas of a group have and no others.
func selector(ref spillway.Ref, g spillway.Group) map[string]string {
	return map[string]string{AppLabel: v1alpha1.Label(ref), ServiceLabel: g.Service, ReleaseLabel: strconv.Itoa(g.Release)}
}

// labels are those of the objects of a group.
func labels(ref spillway.Ref, g spillway.Group) map[string]string {
	all := own(ref)
	for k, v := range selector(ref, g) {
		all[k] = v
	}
	all["app.kubernetes.io/name"] = g.Service
	all["app.kubernetes.io/version"] = strconv.Itoa(g.Release)
	return all
}

// publicAnnotation is on the Deployments of groups that a gateway has to reach.
const publicAnnotation = "spillway.dev/public"

// groupOf is the group that labels tell; false when they tell none.
func groupOf(labels map[string]string) (spillway.Group, bool) {
	release, err := strconv.Atoi(labels[ReleaseLabel])
	g := spillway.Group{Service: labels[ServiceLabel], Release: release}
	return g, err == nil && g.Service != ""
}

// environment is the environment of a ref: "staging" of "castle@staging".
func environment(ref spillway.Ref) string {
	_, name, _ := strings.Cut(string(ref), "@")
	return cmp.Or(name, "production")
}

// sortedKeys are the keys of a map in their order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
