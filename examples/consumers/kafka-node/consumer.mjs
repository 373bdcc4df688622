// Reads what ncs-relay writes to a Kafka topic: verified, each event once, a late one never undoing a later one.
// Settings: BROKERS, TOPIC, GROUP, DATABASE (a file), NCS_SECRETS (one for each Agora product, separated by spaces).
import { createHmac, timingSafeEqual } from 'node:crypto'
import { DatabaseSync } from 'node:sqlite'
import { Consumer, stringDeserializer } from '@platformatic/kafka'

const env = process.env
const db = new DatabaseSync(env.DATABASE)
db.exec(`CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY);
  CREATE TABLE IF NOT EXISTS latest (entity TEXT PRIMARY KEY, sequence INTEGER, event TEXT)`)
const insert = db.prepare('INSERT INTO done VALUES (?) ON CONFLICT DO NOTHING')
const upsert = db.prepare(`INSERT INTO latest VALUES (?, ?, ?) ON CONFLICT (entity) DO UPDATE
  SET sequence = excluded.sequence, event = excluded.event WHERE excluded.sequence >= latest.sequence`)

function signed (body, signature) {
  return env.NCS_SECRETS.split(' ').some(secret => {
    const mac = Buffer.from(createHmac('sha256', secret).update(body).digest('hex'))
    return mac.length === signature.length && timingSafeEqual(mac, signature)
  })
}

function sequenceOf (body) {
  try { return JSON.parse(body).payload.sequence ?? 0 } catch { return undefined }
}

function handle ({ headers, key: entity, value, topic, partition, offset }) {
  const body = value ?? Buffer.alloc(0)
  const sequence = sequenceOf(body)
  if (sequence === undefined || !signed(body, Buffer.from(headers.get('agora-signature-v2') ?? ''))) {
    console.error('refused', topic, partition, offset) // waiting mends nothing; it stays in the topic, there
    return
  }
  if (headers.has('ncs-test')) return // an operator tries the sink
  const id = headers.get('ncs-event-id')
  const event = headers.get('ncs-event')
  const replay = headers.get('ncs-replay') // an operator wants it done again, so it must not count as known
  const key = replay ? `${id}-r${replay}` : id
  db.exec('BEGIN IMMEDIATE') // one transaction: the key is never there without what was done, nor the other way round
  if (insert.run(key).changes === 0) return db.exec('ROLLBACK')
  const newer = upsert.run(entity ?? '', sequence, event).changes
  db.exec('COMMIT')
  console.log('done', key, entity, sequence, event, newer ? '' : 'late')
}

const consumer = new Consumer({
  groupId: env.GROUP, clientId: 'consumer', bootstrapBrokers: env.BROKERS.split(','), autocommit: false,
  deserializers: { key: stringDeserializer, headerKey: stringDeserializer, headerValue: stringDeserializer }
})
const stream = await consumer.consume({ topics: [env.TOPIC], mode: 'committed', fallbackMode: 'earliest' })
process.on('SIGTERM', () => stream.close())
for await (const message of stream) { // an error ends it, and what is not committed comes again
  handle(message)
  await message.commit()
}
await consumer.close(true)
