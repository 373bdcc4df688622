package config

import _ "embed"

// schema is generated from the structs and their comments by TestSchema (go test ./config -run TestSchema -update).
//
//go:embed schema.json
var schema []byte

// Schema returns the JSON Schema of the file, for editors.
func Schema() []byte { return schema }
