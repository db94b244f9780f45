package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// leases is an API server that knows one Lease.
type leases struct {
	mu      sync.Mutex
	lease   *coordinationv1.Lease
	version int
}

// gate is how one server reaches it.
type gate struct {
	*leases
	mu     sync.Mutex
	shut   bool                // it is not reached any more
	before func(*http.Request) // called for each request; nil = nothing is
}

func (d *gate) set(shut bool, before func(*http.Request)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut, d.before = shut, before
}

// RoundTrip answers as the API server does, with a conflict when the Lease was written since.
func (d *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	d.mu.Lock()
	shut, before := d.shut, d.before
	d.mu.Unlock()
	if before != nil {
		before(r)
	}
	if shut {
		return nil, errors.New("connection refused")
	}
	d.leases.mu.Lock()
	defer d.leases.mu.Unlock()
	var sent coordinationv1.Lease
	if r.Body != nil {
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			return nil, err
		}
	}
	failed := func(code int, reason metav1.StatusReason) (*http.Response, error) {
		return answered(code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason})
	}
	switch {
	case r.Method == http.MethodPost && d.lease != nil:
		return failed(http.StatusConflict, metav1.StatusReasonAlreadyExists)
	case r.Method != http.MethodPost && d.lease == nil:
		return failed(http.StatusNotFound, metav1.StatusReasonNotFound)
	case r.Method == http.MethodPut && sent.ResourceVersion != d.lease.ResourceVersion:
		return failed(http.StatusConflict, metav1.StatusReasonConflict)
	case r.Method != http.MethodGet:
		d.version++
		sent.ResourceVersion = strconv.Itoa(d.version)
		d.lease = &sent
	}
	return answered(http.StatusOK, d.lease)
}

func answered(code int, with any) (*http.Response, error) {
	text, err := json.Marshal(with)
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(text))}, err
}

// holder is who has the Lease; "" = nobody.
func (l *leases) holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lease == nil || l.lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.lease.Spec.HolderIdentity
}

// lead runs Lead of a server and gives how it ended.
func lead(ctx context.Context, d *gate, id string, run func(context.Context) error) chan error {
	ended := make(chan error, 1)
	c := &rest.Config{Host: "http://cluster.test", Transport: d, ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"}}
	// Owned by the test, which waits for its answer; it ends with ctx or with the lease.
	go func() { ended <- Lead(ctx, c, "shop", id, slog.New(slog.DiscardHandler), run) }()
	return ended
}

func TestLead_GivesTheLeaseBackWhenNothingDecidesAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l leases
		a, b := &gate{leases: &l}, &gate{leases: &l}
		ctx, stop := context.WithCancel(t.Context())
		first := lead(ctx, a, "a", func(ctx context.Context) error {
			<-ctx.Done()
			for range 5 { // its last round
				<-time.After(time.Second)
				if who := l.holder(); who != "a" {
					t.Errorf("%q leads while the server before still decides", who)
				}
			}
			return nil
		})
		<-time.After(time.Second)
		next, end := context.WithCancel(t.Context())
		second := lead(next, b, "b", func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
		<-time.After(time.Minute)
		stop()
		if err := <-first; err != nil || l.holder() == "a" {
			t.Errorf("%v, and %q leads", err, l.holder())
		}
		<-time.After(3 * retryTime) // the elector waits for up to 2.2 of them; and not leaseTime
		if who := l.holder(); who != "b" {
			t.Errorf("%q leads, and not the one that waited", who)
		}
		end()
		if err := <-second; err != nil || l.holder() != "" {
			t.Errorf("%v, and %q leads", err, l.holder())
		}
	})
}

// A server that ends in the moment in which it gets the lease decides nothing after that.
func TestLead_RunsNothingThatNobodyWaitsFor(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			a := &gate{leases: &leases{}}
			a.set(false, func(r *http.Request) {
				if r.Method == http.MethodPost {
					stop()
				}
			})
			var over atomic.Bool
			err := <-lead(ctx, a, "a", func(context.Context) error {
				if over.Load() {
					t.Error("it decides after its end")
				}
				return nil
			})
			if over.Store(true); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		})
	}
}

func TestLead_EndsBeforeAnotherServerLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l leases
		a, b := &gate{leases: &l}, &gate{leases: &l}
		var stopped time.Time
		first := lead(t.Context(), a, "a", func(ctx context.Context) error {
			<-ctx.Done()
			stopped = time.Now()
			return nil
		})
		<-time.After(10 * time.Second)
		lost := time.Now()
		a.set(true, nil)
		ctx, end := context.WithCancel(t.Context())
		var leads time.Time
		second := lead(ctx, b, "b", func(ctx context.Context) error {
			leads = time.Now()
			<-ctx.Done()
			return nil
		})
		if err := <-first; !errors.Is(err, ErrNotLeader) {
			t.Errorf("it ended with %v", err)
		}
		<-time.After(leaseTime)
		end()
		<-second
		if after := stopped.Sub(lost); after > renewTime+retryTime {
			t.Errorf("it decided for %s without a lease", after)
		}
		if between := leads.Sub(stopped); between < leaseTime-renewTime-2*retryTime {
			t.Errorf("the other led %s after it had stopped: what was sent last may still be under way", between)
		}
	})
}

func TestLead_LosesTheLeaseWhileItIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l leases
		a := &gate{leases: &l}
		ctx, stop := context.WithCancel(t.Context())
		first := lead(ctx, a, "a", func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
		<-time.After(5 * time.Second)
		a.set(false, func(r *http.Request) { // between its last look and its last write
			if l.mu.Lock(); r.Method == http.MethodPut {
				other := "b"
				l.version++
				l.lease = l.lease.DeepCopy()
				l.lease.Spec.HolderIdentity, l.lease.ResourceVersion = &other, strconv.Itoa(l.version)
			}
			l.mu.Unlock()
		})
		stop()
		if err := <-first; err != nil || l.holder() != "b" {
			t.Errorf("%v, and %q leads: the lease of another is not ours to give", err, l.holder())
		}
	})
}

func TestLead_GivesUpOnALeaseThatCannotBeGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l leases
		a := &gate{leases: &l}
		ctx, stop := context.WithCancel(t.Context())
		failed := errors.New("the loop failed")
		first := lead(ctx, a, "a", func(ctx context.Context) error {
			<-ctx.Done()
			a.set(true, nil)
			return failed
		})
		<-time.After(5 * time.Second)
		began := time.Now()
		stop()
		if err := <-first; !errors.Is(err, failed) || time.Since(began) > renewTime {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
