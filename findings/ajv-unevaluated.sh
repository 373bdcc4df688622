#!/usr/bin/env bash
# ajv 8.20.0, class for 2020-12: what "if" and "contains" looked at does not count as evaluated, or all of the array does.
#
# Guess before it was run: unevaluatedProperties and unevaluatedItems give the verdict of the specification, as they do in
# python-jsonschema 4.26.0 and santhosh-tekuri/jsonschema 6.0.3 for Go.
# Seen: an "if" without "then" passes its annotations on by the specification; ajv drops them and refuses a property that "if" has
# looked at. After "contains" ajv takes every item for evaluated, and so lets an item through that nothing allows; with
# minContains 0 it refuses items that "contains" has matched. A closed schema means another thing in Node than in Python and Go:
# close schemas with additionalProperties, in which all agree.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >cases.json <<'JSON'
[
  ["if without then", {"if": {"properties": {"k": {"const": 1}}, "required": ["k"]}, "unevaluatedProperties": false}, {"k": 1}],
  ["an item beside contains", {"prefixItems": [true], "contains": {"type": "string"}, "unevaluatedItems": false}, [1, 2, "a"]],
  ["minContains 0", {"contains": {"type": "string"}, "minContains": 0, "unevaluatedItems": false}, ["a"]],
  ["additionalProperties", {"properties": {"k": {"const": 1}}, "additionalProperties": false}, {"k": 1}]
]
JSON

echo '{"private": true, "dependencies": {"ajv": "8.20.0"}}' >package.json
npm install --silent >npm.log 2>&1 || { cat npm.log >&2; exit 1; }
cat >main.cjs <<'JS'
const Ajv = require('ajv/dist/2020').default
for (const [name, schema, value] of require('./cases.json')) {
  console.log(`ajv: ${name}: ${new Ajv({ strict: false }).validate(schema, value) ? 'valid' : 'invalid'}`)
}
JS

python3 -m pip install --quiet --target packages jsonschema==4.26.0 >pip.log 2>&1 || { cat pip.log >&2; exit 1; }
cat >main.py <<'PY'
import json
from jsonschema import Draft202012Validator

for name, schema, value in json.load(open("cases.json")):
    print(f"python: {name}:", "valid" if Draft202012Validator(schema).is_valid(value) else "invalid")
PY

cat >go.mod <<'MOD'
module finding

go 1.26.0

require github.com/santhosh-tekuri/jsonschema/v6 v6.0.3
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func main() {
	file, err := os.Open("cases.json")
	if err != nil {
		panic(err)
	}
	cases, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		panic(err)
	}
	for _, c := range cases.([]any) {
		compiler := jsonschema.NewCompiler()
		if err := compiler.AddResource("s.json", c.([]any)[1]); err != nil {
			panic(err)
		}
		err := compiler.MustCompile("s.json").Validate(c.([]any)[2])
		fmt.Printf("go: %s: %s\n", c.([]any)[0], map[bool]string{true: "valid", false: "invalid"}[err == nil])
	}
}
GO
go mod tidy >tidy.log 2>&1 || { cat tidy.log >&2; exit 1; }
seen=$(node main.cjs && PYTHONPATH=packages python3 main.py && go run .)
printf '%s\n' "$seen"
others() { printf '%s: if without then: valid\n%s: an item beside contains: invalid\n%s: minContains 0: valid\n%s: additionalProperties: valid' "$1" "$1" "$1" "$1"; }
[ "$seen" = "ajv: if without then: invalid
ajv: an item beside contains: valid
ajv: minContains 0: invalid
ajv: additionalProperties: valid
$(others python)
$(others go)" ] || { echo "the validators behave otherwise now" >&2; exit 1; }
