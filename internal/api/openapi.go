package api

import (
	"encoding"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// object is a JSON object of the OpenAPI document.
type object = map[string]any

// openAPI describes the routes as an OpenAPI 3.1 document. The schemas are read off the Go types that
// are sent, so the two cannot disagree.
func openAPI(routes []route) object {
	s := schemas{}
	paths := object{}
	for _, r := range routes {
		at, ok := paths[r.path].(object)
		if !ok {
			at = object{}
			paths[r.path] = at
		}
		at[strings.ToLower(r.method)] = s.operation(r)
	}
	failed := object{"description": "What was wrong", "content": s.content("application/json", failure{})}
	return object{
		"openapi": "3.1.0",
		"info":    object{"title": "Spillway", "version": "v1", "description": "Deploys apps, and takes them back."},
		"paths":   paths,
		"components": object{
			"schemas":         map[string]object(s),
			"responses":       object{"Failed": failed},
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}},
		},
		"security": []object{{"token": []string{}}},
	}
}

// operation describes one route.
func (s schemas) operation(r route) object {
	params := []object{}
	for _, name := range pathParams(r.path) {
		params = append(params, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range r.params {
		params = append(params, object{"name": p.name, "in": "query", "description": p.about, "schema": object{"type": p.kind}})
	}
	answer := object{}
	switch {
	case r.events:
		answer = s.content(mediaEvents, r.answer)
		fallthrough
	case r.lines:
		answer[mediaLines] = s.content(mediaLines, r.answer)[mediaLines]
	default:
		answer = s.content("application/json", r.answer)
	}
	status := strconv.Itoa(max(r.status, http.StatusOK))
	o := object{
		"summary": r.summary, "operationId": operationID(r), "parameters": params,
		"responses": object{
			status:    object{"description": "It went well", "content": answer},
			"default": object{"$ref": "#/components/responses/Failed"},
		},
	}
	if r.body != nil {
		o["requestBody"] = object{"required": true, "content": s.content("application/json", r.body)}
	}
	if r.source {
		archive := object{"application/gzip": object{"schema": object{"type": "string", "format": "binary"}}}
		o["requestBody"] = object{"required": true, "description": "gzipped tar of the app's directory", "content": archive}
	}
	return o
}

// pathParams lists the names in braces: "/v1/apps/{ref}" has ref.
func pathParams(path string) []string {
	var names []string
	for _, found := range regexp.MustCompile(`{(\w+)}`).FindAllStringSubmatch(path, -1) {
		names = append(names, found[1])
	}
	return names
}

// operationID is a name for generated clients: "get_apps_ref_events".
func operationID(r route) string {
	path := strings.NewReplacer("/v1/", "", "/", "_", "{", "", "}", "", ".json", "").Replace(r.path)
	return strings.ToLower(r.method) + "_" + path
}

// schemas collects the named types that it meets, by name.
type schemas map[string]object

func (s schemas) content(media string, v any) object {
	return object{media: object{"schema": s.of(reflect.TypeOf(v))}}
}

// of gives the schema of a type.
func (s schemas) of(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return object{}
	case t == reflect.TypeFor[spillway.Strategy]():
		return object{"type": "string", "enum": spillway.Strategies}
	case t == reflect.TypeFor[spillway.Verb]():
		return object{"type": "string", "enum": verbs()}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Interface:
		return object{}
	case reflect.Struct:
		return s.named(t)
	}
	panic("api: no schema for " + t.String())
}

// named puts the schema of a struct among the components and refers to it.
func (s schemas) named(t reflect.Type) object {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	if _, done := s[name]; !done {
		s[name] = nil // a type that contains itself meets this
		properties, required := object{}, []string{}
		s.fields(t, properties, &required)
		s[name] = object{"type": "object", "properties": properties, "required": required}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (s schemas) fields(t reflect.Type, properties object, required *[]string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			s.fields(f.Type, properties, required)
		case name != "-":
			properties[name] = s.of(f.Type)
			if options == "" {
				*required = append(*required, name)
			}
		}
	}
}
