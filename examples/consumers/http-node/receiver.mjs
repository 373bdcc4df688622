// Takes what ncs-relay posts: verified, each event once, a late one never undoing a later one.
// Settings: PORT, DATABASE (a file), WEBHOOK_SECRET, and NCS_SECRETS if it is to check Agora's signature as well.
import { createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'
import { DatabaseSync } from 'node:sqlite'
import { Webhook } from 'standardwebhooks'

const webhook = new Webhook(process.env.WEBHOOK_SECRET)
const secrets = (process.env.NCS_SECRETS ?? '').split(' ').filter(Boolean)
const db = new DatabaseSync(process.env.DATABASE)
db.exec(`CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY);
  CREATE TABLE IF NOT EXISTS latest (entity TEXT PRIMARY KEY, sequence INTEGER, event TEXT)`)
const insert = db.prepare('INSERT INTO done VALUES (?) ON CONFLICT DO NOTHING')
const upsert = db.prepare(`INSERT INTO latest VALUES (?, ?, ?) ON CONFLICT (entity) DO UPDATE
  SET sequence = excluded.sequence, event = excluded.event WHERE excluded.sequence >= latest.sequence`)

function verified (headers, body) {
  try { // covers key, time and body; Agora's signature covers the body only
    webhook.verify(body, headers, { jsonParse: false })
  } catch {
    return false
  }
  const signature = Buffer.from(headers['agora-signature-v2'] ?? '')
  return secrets.length === 0 || secrets.some(secret => {
    const mac = Buffer.from(createHmac('sha256', secret).update(body).digest('hex'))
    return mac.length === signature.length && timingSafeEqual(mac, signature)
  })
}

function sequenceOf (body) {
  try { return JSON.parse(body).payload.sequence ?? 0 } catch { return undefined }
}

function answer (headers, body) {
  if (!verified(headers, body)) return 401 // tried again: a wrong secret is a fault of ours and must cost no events
  if (headers['ncs-relay-test']) return 200 // an operator tries the sink
  const key = headers['webhook-id'] // the event id; on a replay "<event id>-r1", as it is to be done again
  const event = headers['ncs-relay-event']
  const entity = decodeURIComponent(headers['ncs-relay-entity'] ?? '')
  const sequence = sequenceOf(body)
  if (sequence === undefined) return 422 // a dead letter at once: it will never be understood
  db.exec('BEGIN IMMEDIATE') // one transaction: the key is never there without what was done, nor the other way round
  const isNew = insert.run(key).changes
  const newer = isNew && upsert.run(entity, sequence, event).changes
  db.exec('COMMIT')
  if (isNew) console.log('done', key, entity, sequence, event, newer ? '' : 'late')
  return 200
}

createServer(async (request, response) => {
  try {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    response.writeHead(answer(request.headers, Buffer.concat(chunks))).end()
  } catch (error) {
    console.error(error)
    if (db.isTransaction) db.exec('ROLLBACK')
    response.writeHead(503).end() // tried again
  }
}).listen(process.env.PORT)
