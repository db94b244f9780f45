package v1alpha1

import (
	"slices"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// DeepCopy shares nothing with the app.
func (a *App) DeepCopy() *App {
	if a == nil {
		return nil
	}
	c := &App{TypeMeta: a.TypeMeta, Spec: *a.Spec.DeepCopy(), Status: *a.Status.DeepCopy()}
	a.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	return c
}

// DeepCopyObject is DeepCopy for those who know an app as an object only.
func (a *App) DeepCopyObject() runtime.Object {
	if a == nil {
		return nil
	}
	return a.DeepCopy()
}

// DeepCopy shares nothing with the status.
func (s *AppStatus) DeepCopy() *AppStatus {
	if s == nil {
		return nil
	}
	c := *s
	c.Memory = s.Memory.DeepCopy()
	c.Releases = slices.Clone(s.Releases)
	c.Intents, c.Events = documents(s.Intents), documents(s.Events)
	c.Conditions = copies(s.Conditions, func(from *metav1.Condition, to *metav1.Condition) { from.DeepCopyInto(to) })
	return &c
}

// DeepCopyObject shares nothing with the list.
func (l *AppList) DeepCopyObject() runtime.Object {
	if l == nil {
		return nil
	}
	c := &AppList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&c.ListMeta)
	c.Items = copies(l.Items, func(from, to *App) { *to = *from.DeepCopy() })
	return c
}

// DeepCopy shares nothing with the release.
func (r *Release) DeepCopy() *Release {
	if r == nil {
		return nil
	}
	c := &Release{TypeMeta: r.TypeMeta, Spec: *r.Spec.DeepCopy()}
	r.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	return c
}

// DeepCopyObject is DeepCopy for those who know a release as an object only.
func (r *Release) DeepCopyObject() runtime.Object {
	if r == nil {
		return nil
	}
	return r.DeepCopy()
}

// DeepCopyObject shares nothing with the list.
func (l *ReleaseList) DeepCopyObject() runtime.Object {
	if l == nil {
		return nil
	}
	c := &ReleaseList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&c.ListMeta)
	c.Items = copies(l.Items, func(from, to *Release) { *to = *from.DeepCopy() })
	return c
}

func documents(list []apiextensions.JSON) []apiextensions.JSON {
	return copies(list, func(from, to *apiextensions.JSON) { from.DeepCopyInto(to) })
}

// copies gives nil for nil, so that a copy is equal.
func copies[T any](list []T, into func(from, to *T)) []T {
	if list == nil {
		return nil
	}
	c := make([]T, len(list))
	for i := range list {
		into(&list[i], &c[i])
	}
	return c
}
