#!/usr/bin/env bash
# @asyncapi/parser 3.6.6: naming JSON Schema 2020-12 as the schemaFormat of an AsyncAPI 3.0 payload switches its checks off, silently.
#
# Guess before it was run: the parser knows draft 7 only, and refuses 2020-12 as an unknown format, or warns.
# Seen: it takes the document without a word, whatever the schema says: a type that does not exist passes, and so it does under a
# format that nobody ever defined. In a 2.6 document it at least warns. Without a schemaFormat, or with draft-07, the same schema
# is refused. So AsyncAPI's own format is the one to write, also for schemas that were born as 2020-12.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
echo '{"private": true, "dependencies": {"@asyncapi/parser": "3.6.6"}}' >package.json
npm install --silent >npm.log 2>&1 || { cat npm.log >&2; exit 1; }
cat >main.cjs <<'JS'
const { Parser } = require('@asyncapi/parser')

const schema = { type: 'objekt' }
const two = schemaFormat => ({ channels: { c: { publish: { message: { schemaFormat, payload: schema } } } } })
const three = payload => ({
  channels: { c: { address: 'c', messages: { m: { payload } } } },
  operations: { o: { action: 'receive', channel: { $ref: '#/channels/c' } } }
})
const json = 'application/schema+json;version='

async function show (name, asyncapi, rest) {
  const { document, diagnostics } = await new Parser().parse({ asyncapi, info: { title: 't', version: '1' }, ...rest })
  const said = diagnostics.filter(d => d.severity <= 1 && /schema|payload/i.test(d.message)).length
  console.log(`${asyncapi} ${name}: ${document ? 'accepted' : 'refused'}, ${said ? 'said' : 'not a word'}`)
}

async function main () {
  await show('no format', '3.0.0', three(schema))
  await show('draft-07', '3.0.0', three({ schemaFormat: json + 'draft-07', schema }))
  await show('2020-12', '3.0.0', three({ schemaFormat: json + 'draft-2020-12', schema }))
  await show('a made-up format', '3.0.0', three({ schemaFormat: 'application/vnd.example', schema }))
  await show('2020-12', '2.6.0', two(json + 'draft-2020-12'))
}
main()
JS
seen=$(node main.cjs)
printf '%s\n' "$seen"
[ "$seen" = "3.0.0 no format: refused, said
3.0.0 draft-07: refused, said
3.0.0 2020-12: accepted, not a word
3.0.0 a made-up format: accepted, not a word
2.6.0 2020-12: accepted, said" ] || { echo "the parser behaves otherwise now" >&2; exit 1; }
