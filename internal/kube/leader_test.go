package kube

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestCheckLeader_SaysWhoStandsByAndWhoLeads(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	held := func(ago time.Duration) *coordinationv1.Lease {
		at, id := metav1.NewMicroTime(time.Now().Add(-ago)), "spillway-5d-b-1-1795885581000000000"
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "spillway-server"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &id, RenewTime: &at}}
	}
	for name, c := range map[string]struct {
		lease       *coordinationv1.Lease
		leads       bool
		state, says string
	}{
		"leads":     {held(0), true, "ok", "this server, spillway-5d-a, leads"},
		"stands by": {held(0), false, "ok", "this server, spillway-5d-a, stands by and decides nothing: spillway-5d-b leads"},
		"ended":     {held(time.Hour), false, "warn", "none leads at the moment"},
		"never":     {nil, false, "warn", "none leads at the moment"},
	} {
		b := fake.NewClientBuilder().WithScheme(scheme)
		if c.lease != nil {
			b.WithObjects(c.lease)
		}
		p := &Platform{live: b.Build(), conf: Config{Namespace: "shop"}}
		got := p.CheckLeader(t.Context(), "spillway-5d-a", func() bool { return c.leads })
		if got.State != c.state || !strings.Contains(got.Text, c.says) || (got.Remedy == "") != (c.state == "ok") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
