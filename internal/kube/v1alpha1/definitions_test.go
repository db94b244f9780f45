package v1alpha1_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// schemas gives the schema of each kind as a cluster reads it.
func schemas(t *testing.T) map[string]*structuralschema.Structural {
	t.Helper()
	definitions, err := v1alpha1.Definitions(appfile.Schema())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*structuralschema.Structural{}
	for _, d := range definitions {
		var in apiextensions.JSONSchemaProps
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(d.Spec.Versions[0].Schema.OpenAPIV3Schema, &in, nil); err != nil {
			t.Fatal(err)
		}
		s, err := structuralschema.NewStructural(&in)
		if err != nil {
			t.Fatal(err)
		}
		if errs := structuralschema.ValidateStructural(nil, s); len(errs) > 0 {
			t.Errorf("%s is not structural: %v", d.Name, errs)
		}
		all[d.Spec.Names.Kind] = s
	}
	return all
}

func TestDefinitions_KeepEveryAppFileAsItIs(t *testing.T) {
	app := schemas(t)["App"]
	files, err := filepath.Glob("../../appfile/testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no app files: %v", err)
	}
	more, _ := filepath.Glob("../../../examples/*/spillway.yaml")
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var spec map[string]any
		if err := yaml.Unmarshal(text, &spec); err != nil {
			t.Fatal(err)
		}
		object := map[string]any{"apiVersion": "v", "kind": "App", "spec": spec, "metadata": map[string]any{"name": "castle"}}
		kept := runtime.DeepCopyJSON(roundTrip(t, object))
		pruning.Prune(kept, app, true)
		if !reflect.DeepEqual(kept, roundTrip(t, object)) {
			t.Errorf("%s: a cluster would drop something of it", file)
		}
	}
}

func roundTrip(t *testing.T, v map[string]any) map[string]any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

func TestDefinitions_SpecHasTheKeysOfTheAppFile(t *testing.T) {
	spec := schemas(t)["App"].Properties["spec"]
	if m := spec.XMapType; m == nil || *m != "atomic" {
		t.Error("the spec is not one value: what leaves the file would stay in the spec")
	}
	service := spec.Properties["services"].AdditionalProperties.Structural
	for path, s := range map[string]structuralschema.Structural{
		"app": spec.Properties["app"], "deadline": spec.Properties["deadline"], "services.*.host": service.Properties["host"],
		"environments.*.services.*.needs": spec.Properties["environments"].AdditionalProperties.Structural.Properties["services"].AdditionalProperties.Structural.Properties["needs"],
	} {
		if s.Description == "" {
			t.Errorf("%s is unknown", path)
		}
	}
}

// What the expressions give, a cluster alone can say: TestStore_NameOfTheResourceIsTheApp.
func TestDefinitions_SayTheNamesOfAnAppThatIsNamedWrong(t *testing.T) {
	definitions, err := v1alpha1.Definitions(appfile.Schema())
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range definitions[0].Spec.Versions[0].Schema.OpenAPIV3Schema.XValidations {
		if !strings.Contains(rule.MessageExpression, "self.spec.app") || strings.Contains(rule.Message+rule.MessageExpression, "castle") {
			t.Errorf("%s: %s; %s", rule.Rule, rule.Message, rule.MessageExpression)
		}
	}
}

func TestName_LeadsBackToTheRef(t *testing.T) {
	for ref, name := range map[spillway.Ref]string{"castle": "castle", "castle@staging": "castle.staging"} {
		if v1alpha1.Name(ref) != name || v1alpha1.RefOf(name) != ref || strings.Contains(v1alpha1.Label(ref), "@") || len(v1alpha1.Label(ref)) > 63 {
			t.Errorf("%s: %s, %s, %s", ref, v1alpha1.Name(ref), v1alpha1.RefOf(name), v1alpha1.Label(ref))
		}
	}
	long := spillway.Ref(strings.Repeat("a", 40) + "@" + strings.Repeat("b", 29))
	if one, other := v1alpha1.Label(long+"x"), v1alpha1.Label(long+"y"); one == other || len(validation.IsValidLabelValue(one)) > 0 {
		t.Errorf("labels %s and %s", one, other)
	}
}

func TestDeepCopy_SharesNothing(t *testing.T) {
	text := `{"metadata":{"name":"castle","labels":{"a":"b"}},"spec":{"app":"castle"},"status":{"observedGeneration":1,"conditions":[{"type":"Ready","status":"True","reason":"x","message":"y","lastTransitionTime":"2026-01-01T00:00:00Z"}],
		"phase":"Healthy","stable":1,"candidate":2,"weight":"5%","message":"m","version":3,"memory":{"a":1},"newestRelease":2,"releases":[1,2],"newestIntent":4,"intents":[{"seq":4}],"newestEvent":5,"events":[{"id":5}]}}`
	var app v1alpha1.App
	if err := json.Unmarshal([]byte(text), &app); err != nil {
		t.Fatal(err)
	}
	list := &v1alpha1.AppList{Items: []v1alpha1.App{app}}
	c := list.DeepCopyObject().(*v1alpha1.AppList)
	if !reflect.DeepEqual(list, c) {
		t.Fatalf("it is another: %+v", c)
	}
	st := &c.Items[0].Status
	st.Memory.Raw[0], st.Intents[0].Raw[0], st.Events[0].Raw[0], st.Releases[0], st.Conditions[0].Status = 'x', 'x', 'x', 9, "False"
	c.Items[0].Spec.Raw[0], c.Items[0].Labels["a"] = 'x', "c"
	var again v1alpha1.App
	if err := json.Unmarshal([]byte(text), &again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(list.Items[0], again) {
		t.Error("a change of the copy is a change of the original")
	}
	release := &v1alpha1.ReleaseList{Items: []v1alpha1.Release{{Spec: apiextensionsv1.JSON{Raw: []byte(`{}`)}}}}
	if c := release.DeepCopyObject(); !reflect.DeepEqual(release, c) {
		t.Errorf("releases: %+v", c)
	}
}
