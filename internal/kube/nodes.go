package kube

import (
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// architectureLabel is the kubelet's word for the processor of its node, as Go names it; of osLabel, "linux".
const (
	architectureLabel = "kubernetes.io/arch"
	osLabel           = "kubernetes.io/os"
)

// Architectures are those of the nodes that run Linux, sorted, as Go names them; none when one may not look at nodes.
func (i *Installer) Architectures(ctx context.Context) ([]string, error) {
	nodes := &metav1.PartialObjectMetadataList{}
	nodes.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("NodeList"))
	nodes.APIVersion = "v1"
	err := i.client.List(ctx, nodes, client.MatchingLabels{osLabel: "linux"}, client.Limit(500))
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain("look at the nodes", err)
	}
	var all []string
	for _, n := range nodes.Items {
		if a := n.Labels[architectureLabel]; a != "" {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// CheckPlace reports what is missing in the cluster for a server, as Install does before it changes anything.
func (i *Installer) CheckPlace(ctx context.Context, s Server) error { return i.checkPlace(ctx, s) }
