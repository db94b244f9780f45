package appfile_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/spillway-dev/spillway/internal/appfile"
)

func TestSchema_IsTheReviewedOne(t *testing.T) {
	golden(t, filepath.Join("testdata", "schema.json"), appfile.Schema())
}

// Whatever Parse accepts, an editor with the schema accepts too.
func TestSchema_AcceptsWhatParseAccepts(t *testing.T) {
	for _, file := range files(t, "good") {
		if problem := againstSchema(t, read(t, file)); problem != "" {
			t.Errorf("%s: %s", file, problem)
		}
	}
}

// The mistakes that concern one value are mistakes for an editor too.
func TestSchema_RefusesWhatIsWrongByItself(t *testing.T) {
	const service = "app: shop\nservices: {web: {run: x, %s}}\n"
	for _, wrong := range []string{
		"scael: 3", "scale: 0", `scale: "3"`, "scale: {min: 0}", "scale: {max: 2, cpu: 60}", "scale: {max: 2, rps: 60}", "tls: automatic", "tls: {cert: /a}", "tls: {}", "tls: {redirect: true}",
		"tls: {acme: {email: me}}", "tls: {acme: {ca: http://ca.example.com/}}", "tls: {acme: auto}",
		"tls: {cert: a, key: /b}", "standby: {kep: 1h}", "tracks: {A: {}}", "tracks: {a: {share: 10}}", "tracks: {a: {cookie: x}}",
		"tracks: {a: {urls: [example.com]}}", "synthetic: {rate: 0}", "release: []", "image: Redis:7", "image: https://example.com/redis", "image: redis:", "image: 7", "image: redis latest", "port: 0", "port: 65536", `port: "80"`, "health: healthz", "health: {timeout: 5}",
		"steps: [half]", "steps: []", "host: http://a.example.com", "strategy: canery", "env: {1A: x}", "env: {A: [x]}", "env: {x-a: y}",
		"limits: {cpu: lots}", "surge: -1", "surge: 5 %", "stop: {signal: TERM}", "build: /src", "needs: db",
	} {
		text := fmt.Appendf(nil, service, wrong)
		if _, err := appfile.Parse("a.yaml", text); err == nil {
			t.Errorf("Parse accepts %s", wrong)
		}
		if againstSchema(t, text) == "" {
			t.Errorf("the schema accepts %s", wrong)
		}
	}
}

func TestSchema_RefusesWhatIsWrongInTheApp(t *testing.T) {
	const file = "app: shop\nservices: {web: {run: x, host: a.example.com}}\n%s\n"
	for _, wrong := range []string{
		"budget: 1%", "gates: [half]", "gates: [p42 < 1s]", "gates: [{query: a > 0, dry-run: 1}]", "gates: [{http: http://a/, form: 1%}]",
		"freeze: [weekends]", "freeze: Fri 16:00 - Mon 08:00", "keep: 0", "prometheus: localhost:9090", "warmup: 5", "delay: soon",
		"environments: {}", "environments: {staging: }", "environments: {staging: {services: {web: {scael: 1}}}}",
		"environments: {staging: {services: {web: {tracks: {a: {share: all}}}}}}", "environments: {staging: {app: x}}",
		"routes: [{to: web, users: {x-ann: secret}}]", `routes: [{to: web, request-headers: {set: {x-tier: [x]}}}]`,
	} {
		text := fmt.Appendf(nil, file, wrong)
		if _, err := appfile.Parse("a.yaml", text); err == nil {
			t.Errorf("Parse accepts %s", wrong)
		}
		if againstSchema(t, text) == "" {
			t.Errorf("the schema accepts %s", wrong)
		}
	}
}

// Each key of the schema is one that Parse knows, and the other way round: for the keys that are not
// in it, Parse says "unknown" or "not supported", for those that are it never does.
func TestSchema_HasTheKeysOfParse(t *testing.T) {
	schema := decodeSchema(t)
	service := schema["properties"].(map[string]any)["services"].(map[string]any)["patternProperties"].(map[string]any)
	delete(service, "^x-")
	for _, s := range service {
		checkKeys(t, "app: shop\nservices: {web: {run: x, %s: %s}}\n", s.(map[string]any))
	}
	checkKeys(t, "app: shop\nservices: {web: {run: x}}\n%s: %s\n", schema)
}

func checkKeys(t *testing.T, format string, schema map[string]any) {
	properties := schema["properties"].(map[string]any)
	known := []string{
		"app", "services", "cohort", "budget", "watch", "deadline", "gates", "thin", "routes", "flags", "alerts", "pipeline",
		"environments", "build", "run", "host", "needs", "env", "health", "scale", "limits", "stop", "image", "port", "protocol", "tls",
		"secrets", "release", "volumes", "synthetic", "warmup", "delay", "keep", "prometheus", "freeze", "strategy", "steps", "surge", "unavailable", "standby", "tracks", "command", "dir", "path",
	}
	for _, name := range slices.Concat(known, slices.Collect(maps.Keys(properties))) {
		_, err := appfile.Parse("a.yaml", fmt.Appendf(nil, format, name, "!wrong x"))
		if err == nil {
			t.Fatalf("%s: a value that no key takes was taken", name)
		}
		refused := strings.Contains(err.Error(), name+": unknown key") || strings.Contains(err.Error(), ": "+name+" is not supported")
		if _, in := properties[name]; in == refused {
			t.Errorf("%s: in the schema: %v; Parse says %v", name, in, err)
		}
	}
}

// Editors show the description of a key: each has one, however deep it is.
func TestSchema_DescribesEveryKey(t *testing.T) {
	described := 0
	var look func(path string, value any)
	look = func(path string, value any) {
		switch v := value.(type) {
		case []any:
			for _, item := range v {
				look(path, item)
			}
		case map[string]any:
			properties, _ := v["properties"].(map[string]any)
			for name, p := range properties {
				if doc, _ := p.(map[string]any)["description"].(string); !strings.HasSuffix(doc, ".") {
					t.Errorf("%s.%s: the description %q is no sentence", path, name, doc)
				}
				described++
			}
			for word, below := range v {
				look(path+"."+word, below)
			}
		}
	}
	look("", decodeSchema(t))
	if described < 100 {
		t.Errorf("found %d keys only", described)
	}
}

func decodeSchema(t testing.TB) map[string]any {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(appfile.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

// againstSchema says what of a file the schema refuses; "" when nothing.
func againstSchema(t testing.TB, text []byte) string {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return refused(decodeSchema(t), value, "file")
}

// refused is a check of the few words of JSON Schema that Schema uses; it panics at any other.
func refused(schema map[string]any, value any, path string) string {
	for word, want := range schema {
		problem := ""
		switch word {
		case "$schema", "title", "description", "default", "additionalProperties", "patternProperties":
		case "type":
			problem = wrongType(want, value)
		case "enum":
			if !slices.ContainsFunc(want.([]any), func(v any) bool { return fmt.Sprint(v) == fmt.Sprint(value) && sameType(v, value) }) {
				problem = fmt.Sprintf("%v is none of %v", value, want)
			}
		case "pattern":
			if text, ok := value.(string); ok && !matches(want.(string), text) {
				problem = fmt.Sprintf("%q does not match %s", text, want)
			}
		case "minimum", "maximum", "exclusiveMinimum":
			v, limit := reflect.ValueOf(value), want.(float64)
			if n, ok := number(v); ok && (word == "minimum" && n < limit || word == "maximum" && n > limit || word == "exclusiveMinimum" && n <= limit) {
				problem = fmt.Sprintf("%v breaks %s %v", value, word, limit)
			}
		case "minItems", "maxItems", "items":
			problem = refusedItems(schema, value, path)
		case "required", "minProperties", "properties":
			problem = refusedObject(schema, value, path)
		case "anyOf":
			var problems []string
			for _, s := range want.([]any) {
				problems = append(problems, refused(s.(map[string]any), value, path))
			}
			if !slices.Contains(problems, "") {
				problem = strings.Join(problems, "; ")
			}
		default:
			panic("the schema uses " + word)
		}
		if problem != "" {
			return path + ": " + problem
		}
	}
	if _, ok := schema["patternProperties"]; ok && schema["properties"] == nil {
		return refusedObject(schema, value, path)
	}
	return ""
}

func refusedItems(schema map[string]any, value any, path string) string {
	list, ok := value.([]any)
	if !ok {
		return ""
	}
	if least, _ := schema["minItems"].(float64); float64(len(list)) < least {
		return "too few items"
	}
	if most, bounded := schema["maxItems"].(float64); bounded && float64(len(list)) > most {
		return "too many items"
	}
	for i, item := range list {
		if problem := refused(schema["items"].(map[string]any), item, fmt.Sprintf("%s[%d]", path, i)); problem != "" {
			return problem
		}
	}
	return ""
}

func refusedObject(schema map[string]any, value any, path string) string {
	object, ok := value.(map[string]any)
	if !ok {
		return ""
	}
	if least, _ := schema["minProperties"].(float64); float64(len(object)) < least {
		return "too few keys"
	}
	required, _ := schema["required"].([]any)
	for _, key := range required {
		if _, ok := object[key.(string)]; !ok {
			return key.(string) + " is missing"
		}
	}
	if schema["properties"] == nil && schema["patternProperties"] == nil {
		return "" // it says nothing about the keys
	}
	properties, _ := schema["properties"].(map[string]any)
	for key, v := range object {
		var found []map[string]any
		if s, ok := properties[key]; ok {
			found = append(found, s.(map[string]any))
		}
		for pattern, s := range schema["patternProperties"].(map[string]any) {
			if matches(pattern, key) {
				found = append(found, s.(map[string]any))
			}
		}
		if found == nil {
			return key + " is not allowed"
		}
		for _, s := range found {
			if problem := refused(s, v, path+"."+key); problem != "" {
				return problem
			}
		}
	}
	return ""
}

func matches(pattern, text string) bool {
	if rest, ok := strings.CutPrefix(pattern, "^(?!x-)"); ok { // Go's regexp has no lookahead
		return !strings.HasPrefix(text, "x-") && matches("^"+rest, text)
	}
	return regexp.MustCompile(pattern).MatchString(text)
}

func wrongType(want, value any) string {
	names, ok := want.([]any)
	if !ok {
		names = []any{want}
	}
	got := typeOf(value)
	if slices.Contains(names, any(got)) || got == "integer" && slices.Contains(names, any("number")) {
		return ""
	}
	return fmt.Sprintf("is %s, not %v", got, names)
}

func sameType(a, b any) bool {
	_, aText := a.(string)
	_, bText := b.(string)
	return aText == bText
}

func number(v reflect.Value) (float64, bool) {
	switch {
	case v.IsValid() && v.CanInt():
		return float64(v.Int()), true
	case v.IsValid() && v.CanUint():
		return float64(v.Uint()), true
	case v.IsValid() && v.CanFloat():
		return v.Float(), true
	}
	return 0, false
}

func typeOf(value any) string {
	switch value.(type) {
	case string, time.Time:
		return "string"
	case bool:
		return "boolean"
	case float64:
		return "number"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	case nil:
		return "null"
	}
	return "integer"
}
