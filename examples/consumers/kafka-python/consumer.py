"""Reads what ncs-relay writes to a Kafka topic: verified, each event once, a late one never undoing a later one.

Settings: BROKERS, TOPIC, GROUP, DATABASE (a file), NCS_SECRETS (one for each Agora product, separated by spaces).
"""
import hashlib
import hmac
import json
import os
import signal
import sqlite3
import sys

from confluent_kafka import Consumer, KafkaException

secrets = [s.encode() for s in os.environ["NCS_SECRETS"].split()]
db = sqlite3.connect(os.environ["DATABASE"])
db.execute("CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY)")
db.execute("CREATE TABLE IF NOT EXISTS latest (entity TEXT PRIMARY KEY, sequence INTEGER, event TEXT)")
UPSERT = """INSERT INTO latest VALUES (?, ?, ?) ON CONFLICT (entity) DO UPDATE
    SET sequence = excluded.sequence, event = excluded.event WHERE excluded.sequence >= latest.sequence"""


def handle(record):
    headers, body = dict(record.headers() or []), record.value() or b""
    signature = headers.get("agora-signature-v2") or b""
    if not any(hmac.compare_digest(hmac.digest(s, body, hashlib.sha256).hex().encode(), signature) for s in secrets):
        raise ValueError("not signed with a secret of ours")
    if "ncs-test" in headers:  # an operator tries the sink
        return
    key, event = headers["ncs-event-id"].decode(), headers["ncs-event"].decode()
    if "ncs-replay" in headers:  # an operator wants it done again, so it must not count as known
        key += "-r" + headers["ncs-replay"].decode()
    entity, sequence = (record.key() or b"").decode(), json.loads(body)["payload"].get("sequence", 0)
    with db:  # one transaction: the key is never there without what was done, nor the other way round
        if db.execute("INSERT INTO done VALUES (?) ON CONFLICT DO NOTHING", [key]).rowcount == 0:
            return
        newer = db.execute(UPSERT, [entity, sequence, event]).rowcount
    print("done", key, entity, sequence, event, "" if newer else "late", flush=True)


consumer = Consumer({"bootstrap.servers": os.environ["BROKERS"], "group.id": os.environ["GROUP"],
                     "auto.offset.reset": "earliest", "enable.auto.offset.store": False})
consumer.subscribe([os.environ["TOPIC"]])
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
try:
    while True:
        if (record := consumer.poll(1)) is None:
            continue
        if record.error():
            raise KafkaException(record.error())
        try:
            handle(record)
        except (ValueError, LookupError, TypeError, AttributeError) as e:  # waiting mends nothing; it stays in the topic, and this says where
            print("refused", record.topic(), record.partition(), record.offset(), e, file=sys.stderr, flush=True)
        consumer.store_offsets(record)  # handled, so it may be committed: every 5 s, and by close
finally:
    consumer.close()
