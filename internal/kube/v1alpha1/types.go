package v1alpha1

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/spillway-dev/spillway"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Group is the API group, Version its one version.
const (
	Group   = "spillway.dev"
	Version = "v1alpha1"
)

const (
	// Manager is the field manager of everything that Spillway writes.
	Manager = "spillway"
	// Finalizer keeps an App that is deleted until what it runs has gone in good order.
	Finalizer = "spillway.dev/app"
	// AppLabel leads from a Release to its App: see Label.
	AppLabel = "spillway.dev/app"
	// SourceAnnotation of a Release is where it came from in a few letters: "1a2b3c4d5e6f", "1a2b3c4d5e6f dirty".
	SourceAnnotation = "spillway.dev/source"
)

// The conditions of an App. Ready, Progressing and Degraded are about what runs; Accepted, Reconciling and Stalled
// are about the spec, the last two as tools that wait for any resource look for them.
const (
	Ready       = "Ready"       // a release serves with the promised capacity
	Progressing = "Progressing" // a rollout is under way or waits
	Degraded    = "Degraded"    // the promised capacity is not there, or nothing serves
	Accepted    = "Accepted"    // the spec of observedGeneration is a release; False: its message has the mistakes
	Reconciling = "Reconciling" // there while a rollout is under way
	Stalled     = "Stalled"     // there while the spec is refused: it has mistakes, or something else stands against it
)

// GroupVersion is the group and its version.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version}

// App is what an app file describes, in one environment.
type App struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   apiextensions.JSON `json:"spec"` // the app file
	Status AppStatus          `json:"status,omitzero"`
}

// AppStatus is what Spillway says of an App, and all that it remembers of it.
type AppStatus struct {
	// ObservedGeneration is the newest generation of the spec that was looked at: made a release, or refused.
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`

	Phase     spillway.Phase `json:"phase,omitempty"`
	Stable    int            `json:"stable,omitempty"`    // the release that serves
	Candidate int            `json:"candidate,omitempty"` // the release that is tried
	Weight    string         `json:"weight,omitempty"`    // of the users on the candidate: "25%"
	Message   string         `json:"message,omitempty"`   // one sentence for people

	// Version rises with every save of the memory; 0 = never saved.
	Version int64               `json:"version,omitempty"`
	Memory  *apiextensions.JSON `json:"memory,omitempty"` // a rollout.Status

	// NewestRelease is the highest number ever given. Releases are those that count, rising: a Release that
	// is not listed was never finished or is forgotten, and nobody acts on it.
	NewestRelease int   `json:"newestRelease,omitempty"`
	Releases      []int `json:"releases,omitempty"`

	NewestIntent int64                `json:"newestIntent,omitempty"` // the highest Seq ever given
	Intents      []apiextensions.JSON `json:"intents,omitempty"`      // spillway.Intent, not acted on yet, in order

	NewestEvent int64                `json:"newestEvent,omitempty"` // the highest ID ever given
	Events      []apiextensions.JSON `json:"events,omitempty"`      // spillway.Event, the newest ones, oldest first
}

// AppList is a list of apps.
type AppList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []App `json:"items"`
}

// Release is one immutable, numbered state of an app.
type Release struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec apiextensions.JSON `json:"spec"` // a spillway.Release
}

// ReleaseList is a list of releases.
type ReleaseList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Release `json:"items"`
}

// AddToScheme teaches a scheme the types of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &App{}, &AppList{}, &Release{}, &ReleaseList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// Name is the name of the App of a ref: "castle", and "castle.staging" for "castle@staging".
func Name(app spillway.Ref) string { return strings.Replace(string(app), "@", ".", 1) }

// RefOf is the ref of an App by its name.
func RefOf(name string) spillway.Ref { return spillway.Ref(strings.Replace(name, ".", "@", 1)) }

// Label is the ref as a label has it: as Name, which no other ref has. One that is too long for a label keeps its
// beginning and ends in a sum of the whole.
func Label(app spillway.Ref) string {
	label := Name(app)
	if len(label) <= validation.LabelValueMaxLength {
		return label
	}
	return fmt.Sprintf("%s-%.5x", strings.TrimRight(label[:validation.LabelValueMaxLength-11], "-."), sha256.Sum256([]byte(label)))
}
