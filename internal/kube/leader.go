package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
)

// Unasked is why it is not known what the gateway serves of an app, to a server that did not ask for it itself.
const Unasked = "it is not known yet what the gateway serves: this server has just begun to look, and asks it now"

// leaseName is the Lease that the server which decides holds: see Lead.
const leaseName = "spillway-server"

// Leader names the server of the namespace that decides: the name of its host, which is that of its pod. "" when none
// does at the moment.
func (p *Platform) Leader(ctx context.Context) (string, error) {
	var lease coordinationv1.Lease
	err := p.live.Get(ctx, client.ObjectKey{Namespace: p.conf.Namespace, Name: leaseName}, &lease)
	switch {
	case apierrors.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", explain("look who leads", err)
	}
	return holder(lease.Spec, time.Now()), nil
}

// holder names who holds a lease; "" when nobody does any more.
func holder(l coordinationv1.LeaseSpec, now time.Time) string {
	if l.HolderIdentity == nil || l.RenewTime == nil || now.Sub(l.RenewTime.Time) > leaseTime {
		return ""
	}
	id := strings.Split(*l.HolderIdentity, "-") // HOST-PID-TIME
	return strings.Join(id[:max(1, len(id)-2)], "-")
}

// Standing says what a server that does not lead is, and who leads: "this server, spillway-1, stands by: spillway-2 leads".
// led: another one leads.
func (p *Platform) Standing(ctx context.Context, self string) (text string, led bool) {
	leader, err := p.Leader(ctx)
	switch {
	case err != nil:
		return fmt.Sprintf("this server, %s, stands by, and who leads is not known: %s", self, spillway.Text(err)), false
	case leader == "":
		return fmt.Sprintf("this server, %s, stands by, and none leads at the moment: one takes over within %s", self, leaseTime), false
	}
	return fmt.Sprintf("this server, %s, stands by and decides nothing: %s leads", self, leader), true
}

// CheckLeader says who decides. leads: this server does, whose host is self.
func (p *Platform) CheckLeader(ctx context.Context, self string, leads func() bool) spillway.Check {
	c := spillway.Check{Name: "leader", State: "ok", Text: "this server, " + self + ", leads"}
	if leads() {
		return c
	}
	var led bool
	if c.Text, led = p.Standing(ctx, self); !led {
		c.State, c.Remedy = "warn", "look again in "+leaseTime.String()+"; if none leads then: kubectl logs deployment/"+serverName+" -n "+p.conf.Namespace
	}
	return c
}

// Namespace is the one that everything is in.
func (p *Platform) Namespace() string { return p.conf.Namespace }
