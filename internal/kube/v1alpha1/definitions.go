package v1alpha1

import (
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Definitions are the CustomResourceDefinitions of App and Release, to be installed in a cluster. appFile is the
// JSON Schema of the app file: a cluster checks of it what its kind of schema can say, and shows it to
// "kubectl explain app.spec". Unknown keys are kept, so that the server can say what was meant.
func Definitions(appFile []byte) ([]*apiextensions.CustomResourceDefinition, error) {
	spec, err := structural(appFile)
	if err != nil {
		return nil, err
	}
	spec.Required = []string{"app"} // the server says better what else is missing
	spec.XMapType = new("atomic")   // one value: who applies it owns all of it, and what left the file leaves the spec
	return []*apiextensions.CustomResourceDefinition{
		definition("App", "apps", "app", []string{"spapp"}, []string{"all", "spillway"}, appColumns(), appSchema(spec),
			&apiextensions.CustomResourceSubresources{Status: &apiextensions.CustomResourceSubresourceStatus{}}),
		definition("Release", "releases", "release", []string{"sprel"}, []string{"spillway"}, releaseColumns(), releaseSchema(), nil),
	}, nil
}

func definition(kind, plural, singular string, short, categories []string, columns []apiextensions.CustomResourceColumnDefinition,
	schema apiextensions.JSONSchemaProps, sub *apiextensions.CustomResourceSubresources) *apiextensions.CustomResourceDefinition {
	return &apiextensions.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiextensions.SchemeGroupVersion.String(), Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: plural + "." + Group, Labels: map[string]string{"app.kubernetes.io/managed-by": Manager}},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: Group,
			Names: apiextensions.CustomResourceDefinitionNames{
				Kind: kind, ListKind: kind + "List", Plural: plural, Singular: singular, ShortNames: short, Categories: categories,
			},
			Scope: apiextensions.NamespaceScoped,
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: Version, Served: true, Storage: true,
				Schema:                   &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &schema},
				Subresources:             sub,
				AdditionalPrinterColumns: columns,
			}},
		},
	}
}

func appColumns() []apiextensions.CustomResourceColumnDefinition {
	return []apiextensions.CustomResourceColumnDefinition{
		{Name: "Phase", Type: "string", JSONPath: ".status.phase", Description: "Healthy, Progressing, Paused, Promoting, RollingBack, Degraded or Destroying"},
		{Name: "Stable", Type: "integer", JSONPath: ".status.stable", Description: "the release that serves"},
		{Name: "Candidate", Type: "integer", JSONPath: ".status.candidate", Description: "the release that is tried"},
		{Name: "Weight", Type: "string", JSONPath: ".status.weight", Description: "the share of the users on the candidate"},
		{Name: "Accepted", Type: "string", JSONPath: `.status.conditions[?(@.type=="Accepted")].status`, Description: "whether the spec is without mistakes", Priority: 1},
		{Name: "Message", Type: "string", JSONPath: ".status.message"},
		{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"},
	}
}

func releaseColumns() []apiextensions.CustomResourceColumnDefinition {
	return []apiextensions.CustomResourceColumnDefinition{
		{Name: "App", Type: "string", JSONPath: ".spec.ref"},
		{Name: "Number", Type: "integer", JSONPath: ".spec.number"},
		{Name: "By", Type: "string", JSONPath: ".spec.by"},
		{Name: "Source", Type: "string", JSONPath: `.metadata.annotations.spillway\.dev/source`, Description: "the commit that it was made of"},
		{Name: "Note", Type: "string", JSONPath: ".spec.note", Priority: 1},
		{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"},
	}
}

func appSchema(spec apiextensions.JSONSchemaProps) apiextensions.JSONSchemaProps {
	text := func(description string) apiextensions.JSONSchemaProps {
		return apiextensions.JSONSchemaProps{Type: "string", Description: description}
	}
	number := func(description string) apiextensions.JSONSchemaProps {
		return apiextensions.JSONSchemaProps{Type: "integer", Format: "int64", Description: description}
	}
	list := func(of apiextensions.JSONSchemaProps, description string) apiextensions.JSONSchemaProps {
		return apiextensions.JSONSchemaProps{Type: "array", Items: &apiextensions.JSONSchemaPropsOrArray{Schema: &of}, Description: description, XListType: new("atomic")}
	}
	memory := opaque("What the engine remembers. It is not to be edited.")
	memory.XMapType = new("atomic")
	status := apiextensions.JSONSchemaProps{
		Type: "object", Description: "What Spillway says of the app, and what it remembers of it.",
		Properties: map[string]apiextensions.JSONSchemaProps{
			"observedGeneration": number("The newest generation of the spec that was looked at."),
			"conditions":         conditions(),
			"phase":              text("Healthy, Progressing, Paused, Promoting, RollingBack, Degraded or Destroying."),
			"stable":             number("The number of the release that serves."),
			"candidate":          number("The number of the release that is tried."),
			"weight":             text("The share of the users on the candidate."),
			"message":            text("What happened last, in one sentence."),
			"version":            number("How often the memory was saved."),
			"memory":             memory,
			"newestRelease":      number("The highest number that a release ever had."),
			"releases":           list(number(""), "The numbers of the releases that there are."),
			"newestIntent":       number("The number of the newest thing asked for."),
			"intents":            list(opaque(""), "What was asked for and is not acted on yet."),
			"newestEvent":        number("The number of the newest event."),
			"events":             list(opaque(""), "The newest events, oldest first."),
		},
	}
	return apiextensions.JSONSchemaProps{
		Type: "object", Description: "An app in one environment: its app file, and how it is.", Required: []string{"spec"},
		Properties: map[string]apiextensions.JSONSchemaProps{
			"apiVersion": text(""), "kind": text(""), "metadata": {Type: "object"}, "spec": spec, "status": status,
		},
		XValidations: apiextensions.ValidationRules{{
			Rule:              "self.metadata.name == self.spec.app || self.metadata.name.startsWith(self.spec.app + '.')",
			Message:           "the name of the resource must be the app of its spec, or APP.ENVIRONMENT",
			MessageExpression: "'the name of the resource must be the app of its spec, ' + self.spec.app + ', or ' + self.spec.app + '.ENVIRONMENT; it is ' + self.metadata.name",
		}, {
			Rule:              "self.metadata.name != self.spec.app + '.production'",
			Message:           "production is the environment without a name: the resource is named as the app",
			MessageExpression: "'production is the environment without a name: the name of the resource must be ' + self.spec.app",
		}},
	}
}

// conditions is the list of metav1.Condition, merged by type.
func conditions() apiextensions.JSONSchemaProps {
	text := apiextensions.JSONSchemaProps{Type: "string"}
	return apiextensions.JSONSchemaProps{
		Type: "array", XListType: new("map"), XListMapKeys: []string{"type"},
		Items: &apiextensions.JSONSchemaPropsOrArray{Schema: &apiextensions.JSONSchemaProps{
			Type: "object", Required: []string{"type", "status", "reason", "message", "lastTransitionTime"},
			Properties: map[string]apiextensions.JSONSchemaProps{
				"type": text, "status": text, "reason": text, "message": text,
				"observedGeneration": {Type: "integer", Format: "int64"},
				"lastTransitionTime": {Type: "string", Format: "date-time"},
			},
		}},
	}
}

func releaseSchema() apiextensions.JSONSchemaProps {
	spec := opaque("The release as it was deployed. It never changes.")
	spec.XMapType = new("atomic")
	spec.XValidations = apiextensions.ValidationRules{{Rule: "self == oldSelf", Message: "a release never changes: deploy another one"}}
	return apiextensions.JSONSchemaProps{
		Type: "object", Description: "One immutable, numbered state of an app.", Required: []string{"spec"},
		Properties: map[string]apiextensions.JSONSchemaProps{
			"apiVersion": {Type: "string"}, "kind": {Type: "string"}, "metadata": {Type: "object"}, "spec": spec,
		},
	}
}

// opaque is an object that is kept as it is.
func opaque(description string) apiextensions.JSONSchemaProps {
	return apiextensions.JSONSchemaProps{Type: "object", Description: description, XPreserveUnknownFields: new(true)}
}
