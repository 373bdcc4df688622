#!/usr/bin/env bash
# ajv-formats 3.0.1, python-jsonschema 4.26.0 and santhosh-tekuri/jsonschema 6.0.3: no two agree on which texts are a date-time.
#
# Guess before it was run: all check RFC 3339, so an offset without a colon is refused, a leap second is taken, and the three agree.
# Seen: ajv takes a blank for the T, and an offset without a colon, which RFC 3339 does not have. Python (with rfc3339-validator
# 0.1.4, which its extra "format" brings) refuses each leap second, which RFC 3339 has. Only Go does as the RFC says. A time that one
# team's validator lets through is refused by another's: write 2026-01-02T03:04:05.678Z and its like, and expect no more.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
echo '["2026-01-02T03:04:05.678Z", "2026-01-02t03:04:05z", "2026-06-30T23:59:60Z", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05+0000"]' >times.json

echo '{"private": true, "dependencies": {"ajv": "8.20.0", "ajv-formats": "3.0.1"}}' >package.json
npm install --silent >npm.log 2>&1 || { cat npm.log >&2; exit 1; }
cat >main.cjs <<'JS'
const Ajv = require('ajv/dist/2020').default
const valid = require('ajv-formats').default(new Ajv()).compile({ type: 'string', format: 'date-time' })
console.log('ajv   ', require('./times.json').map(t => valid(t) ? 'yes' : 'no').join(' '))
JS

python3 -m pip install --quiet --target packages jsonschema==4.26.0 rfc3339-validator==0.1.4 >pip.log 2>&1 || { cat pip.log >&2; exit 1; }
cat >main.py <<'PY'
import json
from jsonschema import Draft202012Validator as Validator

validator = Validator({"type": "string", "format": "date-time"}, format_checker=Validator.FORMAT_CHECKER)
print("python", *("yes" if validator.is_valid(t) else "no" for t in json.load(open("times.json"))))
PY

cat >go.mod <<'MOD'
module finding

go 1.26.0

require github.com/santhosh-tekuri/jsonschema/v6 v6.0.3
MOD
cat >main.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func main() {
	text, err := os.ReadFile("times.json")
	if err != nil {
		panic(err)
	}
	var times []string
	if err := json.Unmarshal(text, &times); err != nil {
		panic(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("s.json", map[string]any{"type": "string", "format": "date-time"}); err != nil {
		panic(err)
	}
	schema := compiler.MustCompile("s.json")
	fmt.Print("go    ")
	for _, t := range times {
		fmt.Print(map[bool]string{true: " yes", false: " no"}[schema.Validate(t) == nil])
	}
	fmt.Println()
}
GO
go mod tidy >tidy.log 2>&1 || { cat tidy.log >&2; exit 1; }
seen=$(node main.cjs && PYTHONPATH=packages python3 main.py && go run .)
printf '%s\n' "$seen"
[ "$seen" = "ajv    yes yes yes yes yes
python yes yes no no no
go     yes yes yes no no" ] || { echo "the validators behave otherwise now" >&2; exit 1; }
