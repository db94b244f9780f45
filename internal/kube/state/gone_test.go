package state_test

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

func TestWatchGone_TellsWhichReleaseWasDeleted(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	release := func(name string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Release"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		}
	}
	c := fake.NewSimpleMetadataClient(scheme, release("castle-7"), release("my-shop.staging-12"), release("of-nobody"))
	stream := watch.NewFakeWithChanSize(10, false)
	c.PrependWatchReactor("releases", func(clienttesting.Action) (bool, watch.Interface, error) { return true, stream, nil })
	type lost struct {
		app    spillway.Ref
		number int
	}
	told := make(chan lost, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { // ended by cancel, waited for below
		defer close(ended)
		state.WatchGone(ctx, c, "shop", func(app spillway.Ref, number int) { told <- lost{app, number} })
	}()
	for _, name := range []string{"of-nobody", "my-shop.staging-12", "castle-7"} {
		stream.Delete(release(name))
	}
	for _, want := range []lost{{"my-shop@staging", 12}, {"castle", 7}} {
		select {
		case got := <-told:
			if got != want {
				t.Errorf("told is %+v, want %+v", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nobody told of %+v", want)
		}
	}
	cancel()
	<-ended
}
