package kube

import (
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// learned is a mapper that remembers what it was told of a kind: a cache of one namespace asks at every read whether the kind
// has namespaces, and the library's mapper goes through all groups of the cluster each time. Where a kind is found does not
// change; what is not found is looked for again.
type learned struct {
	meta.RESTMapper
	known sync.Map // *meta.RESTMapping by schema.GroupVersionKind
}

// RESTMapping says where the objects of a kind are found.
func (m *learned) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	if len(versions) != 1 {
		return m.RESTMapper.RESTMapping(kind, versions...)
	}
	if known, ok := m.known.Load(kind.WithVersion(versions[0])); ok {
		return known.(*meta.RESTMapping), nil
	}
	mapping, err := m.RESTMapper.RESTMapping(kind, versions...)
	if err == nil {
		m.known.Store(kind.WithVersion(versions[0]), mapping)
	}
	return mapping, err
}
