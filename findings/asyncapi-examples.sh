#!/usr/bin/env bash
# @asyncapi/parser 3.6.6: examples of messages are checked against their schemas in an AsyncAPI 2.6 document, and not in a 3.0 one.
#
# Guess before it was run: an example whose payload breaks the message's schema is an error in both; 3.0 moved channels and
# operations about and left messages as they were.
# Seen: 2.6 gives two errors and no document. The same message in 3.0 gives a document and not one word. So a pipeline that was
# green because its examples are right stays green, after the move to 3.0, when they are wrong: validate them yourself.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
echo '{"private": true, "dependencies": {"@asyncapi/parser": "3.6.6"}}' >package.json
npm install --silent >npm.log 2>&1 || { cat npm.log >&2; exit 1; }
cat >main.cjs <<'JS'
const { Parser } = require('@asyncapi/parser')

const message = {
  payload: { type: 'object', properties: { sequence: { type: 'integer' } } },
  headers: { type: 'object', required: ['ncs-event-id'] },
  examples: [{ payload: { sequence: 'three' }, headers: {} }]
}
const documents = {
  '2.6.0': { channels: { c: { publish: { message } } } },
  '3.0.0': {
    channels: { c: { address: 'c', messages: { message } } },
    operations: { o: { action: 'receive', channel: { $ref: '#/channels/c' } } }
  }
}

async function main () {
  for (const [asyncapi, rest] of Object.entries(documents)) {
    const { document, diagnostics } = await new Parser().parse({ asyncapi, info: { title: 't', version: '1' }, ...rest })
    const errors = diagnostics.filter(d => d.severity === 0)
    console.log(`${asyncapi}: ${errors.length} errors, ${document ? 'a document' : 'no document'}`)
  }
}
main()
JS
seen=$(node main.cjs)
printf '%s\n' "$seen"
[ "$seen" = "2.6.0: 2 errors, no document
3.0.0: 0 errors, a document" ] || { echo "the parser behaves otherwise now" >&2; exit 1; }
