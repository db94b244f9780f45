package kube

import (
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/spillway-dev/spillway"
)

// Who lacks a right is told how to get it, and nobody else is: no installation makes a quota larger.
func TestExplain_TellsARightFromAQuota(t *testing.T) {
	for why, right := range map[string]bool{
		`User "system:serviceaccount:shop:spillway" cannot patch resource "services" in API group "" in the namespace "shop"`: true,
		"exceeded quota: small, requested: services=1, used: services=5, limited: services=5":                                 false,
		`admission webhook "policy.test" denied the request: no Service without an owner`:                                     false,
	} {
		err := explain("apply Service/castle-www-1", apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "castle-www-1", errors.New(why)))
		if !errors.Is(err, spillway.ErrDenied) || !strings.Contains(err.Error(), why) || right != strings.Contains(err.Error(), "spillway kube install") || right == strings.Contains(err.Error(), "a quota or a policy") {
			t.Errorf("%s: %v", why, err)
		}
	}
}
