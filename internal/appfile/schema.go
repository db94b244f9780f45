package appfile

import "encoding/json"

// Schema is the JSON Schema (draft 2020-12) of an app file, indented, with a line feed at its end. It
// describes the shape of each value that Parse accepts, so that editors can complete and check a file;
// rules between values are for Parse alone.
func Schema() []byte {
	schema := fileShape().schema()
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Spillway app file"
	schema["description"] = "spillway.yaml: what an app consists of and how new releases of it take over. Keys that begin with x- are ignored, but where keys are names of headers, users or environment variables."
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		panic(err) // maps of strings, numbers and lists always marshal
	}
	return append(text, '\n')
}
