package kube

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// counting counts the questions.
type counting struct {
	meta.RESTMapper
	n int
}

func (a *counting) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	a.n++
	return a.RESTMapper.RESTMapping(kind, versions...)
}

func TestLearned_AsksOnceForWhatIsThere(t *testing.T) {
	app := schema.GroupVersionKind{Group: "spillway.dev", Version: "v1", Kind: "App"}
	cluster := meta.NewDefaultRESTMapper(nil)
	a := &counting{RESTMapper: cluster}
	m := &learned{RESTMapper: a}
	for range 2 { // a CRD may come later
		if _, err := m.RESTMapping(app.GroupKind(), app.Version); !meta.IsNoMatchError(err) {
			t.Fatalf("before it is defined: %v", err)
		}
	}
	cluster.Add(app, meta.RESTScopeNamespace)
	for range 3 {
		mapping, err := m.RESTMapping(app.GroupKind(), app.Version)
		if err != nil || mapping.Scope.Name() != meta.RESTScopeNameNamespace {
			t.Fatalf("%+v, %v", mapping, err)
		}
	}
	if _, err := m.RESTMapping(app.GroupKind(), "v2"); !meta.IsNoMatchError(err) {
		t.Errorf("another version is taken for this: %v", err)
	}
	if a.n != 4 {
		t.Errorf("asked %d times; want 4: twice before, once, and for v2", a.n)
	}
}
