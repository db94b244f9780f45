package v1alpha1

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// A shape is the part of JSON Schema that the schema of the app file is written in.
type shape struct {
	Description          string           `json:"description"`
	Type                 json.RawMessage  `json:"type"` // a name, or a list of them
	Pattern              string           `json:"pattern"`
	Enum                 []any            `json:"enum"`
	Minimum              *float64         `json:"minimum"`
	Maximum              *float64         `json:"maximum"`
	ExclusiveMinimum     *float64         `json:"exclusiveMinimum"`
	MinItems             *int64           `json:"minItems"`
	MaxItems             *int64           `json:"maxItems"`
	MinProperties        *int64           `json:"minProperties"`
	Required             []string         `json:"required"`
	Items                *shape           `json:"items"`
	Properties           map[string]shape `json:"properties"`
	PatternProperties    map[string]shape `json:"patternProperties"`
	AdditionalProperties json.RawMessage  `json:"additionalProperties"` // a shape, or true or false
	AnyOf                []shape          `json:"anyOf"`
}

// structural turns a JSON Schema into the kind that a cluster takes: every value has one type and every object
// either known keys or one shape for all of them. What such a schema cannot say is let through: the server
// checks it all again.
func structural(schema []byte) (apiextensions.JSONSchemaProps, error) {
	var s shape
	if err := json.Unmarshal(schema, &s); err != nil {
		return apiextensions.JSONSchemaProps{}, fmt.Errorf("read the schema of the app file: %w", err)
	}
	return s.props(), nil
}

func (s shape) props() apiextensions.JSONSchemaProps {
	if len(s.AnyOf) > 0 && len(s.Properties) == 0 { // of keys, it says which go together: the server says so better
		return s.union()
	}
	p := apiextensions.JSONSchemaProps{Description: s.Description, Type: s.kind()}
	switch p.Type {
	case "string":
		p.Pattern = s.Pattern
		for _, v := range s.Enum {
			text, _ := json.Marshal(v) // it came from JSON
			p.Enum = append(p.Enum, apiextensions.JSON{Raw: text})
		}
	case "integer", "number":
		p.Minimum, p.Maximum = s.Minimum, s.Maximum
		if s.ExclusiveMinimum != nil {
			p.Minimum, p.ExclusiveMinimum = s.ExclusiveMinimum, true
		}
	case "array":
		p.MinItems, p.MaxItems = s.MinItems, s.MaxItems
		items := anything("")
		if s.Items != nil {
			items = s.Items.props()
		}
		p.Items = &apiextensions.JSONSchemaPropsOrArray{Schema: &items}
		p.XListType = new("atomic")
	case "object":
		p.MinProperties, p.Required = s.MinProperties, s.Required
		s.keys(&p)
	case "boolean":
	default:
		return anything(s.Description)
	}
	return p
}

// kind is the one type of a shape, "" when it has none or several.
func (s shape) kind() string {
	name := ""
	if json.Unmarshal(s.Type, &name) == nil {
		return name
	}
	if len(s.Enum) > 0 && !slices.ContainsFunc(s.Enum, func(v any) bool { _, text := v.(string); return !text }) {
		return "string"
	}
	return ""
}

// keys gives an object its known keys, or else the shape of the value of any key. Keys that begin with x- are
// ignored by the app file, and kept.
func (s shape) keys(p *apiextensions.JSONSchemaProps) {
	if len(s.Properties) > 0 {
		p.Properties = map[string]apiextensions.JSONSchemaProps{}
		for key, value := range s.Properties {
			p.Properties[key] = value.props()
		}
		p.XPreserveUnknownFields = new(true)
		return
	}
	for _, pattern := range slices.Sorted(maps.Keys(s.PatternProperties)) {
		if strings.HasPrefix(pattern, "^x-") {
			continue
		}
		value := s.PatternProperties[pattern].props()
		p.AdditionalProperties = &apiextensions.JSONSchemaPropsOrBool{Allows: true, Schema: &value}
		return
	}
	var value shape
	if len(s.AdditionalProperties) > 0 && json.Unmarshal(s.AdditionalProperties, &value) == nil {
		props := value.props()
		p.AdditionalProperties = &apiextensions.JSONSchemaPropsOrBool{Allows: true, Schema: &props}
		return
	}
	p.XPreserveUnknownFields = new(true)
}

// union is a value of several shapes: what is left of it when null is one of two, a number or a text, or anything.
func (s shape) union() apiextensions.JSONSchemaProps {
	var rest []shape
	for _, one := range s.AnyOf {
		if one.kind() != "null" {
			rest = append(rest, one)
		}
	}
	if len(rest) == 1 {
		p := rest[0].props()
		if len(rest) < len(s.AnyOf) {
			p.Nullable, p.Enum = true, nil // a cluster takes no null where it knows the values
		}
		if s.Description != "" {
			p.Description = s.Description
		}
		return p
	}
	kinds := map[string]bool{}
	for _, one := range rest {
		kinds[one.kind()] = true
	}
	if len(kinds) == 2 && kinds["integer"] && kinds["string"] {
		return apiextensions.JSONSchemaProps{Description: s.Description, XIntOrString: true, Nullable: len(rest) < len(s.AnyOf)}
	}
	return anything(s.Description)
}

// anything is also null: a cluster would drop it silently.
func anything(description string) apiextensions.JSONSchemaProps {
	return apiextensions.JSONSchemaProps{Description: description, XPreserveUnknownFields: new(true), Nullable: true}
}
