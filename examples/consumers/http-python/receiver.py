"""Takes what ncs-relay posts: verified, each event once, a late one never undoing a later one.
Settings: PORT, DATABASE (a file), WEBHOOK_SECRET, and NCS_SECRETS if it is to check Agora's signature as well."""
import hashlib
import hmac
import json
import os
import sqlite3
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
secrets = [s.encode() for s in os.environ.get("NCS_SECRETS", "").split()]
lock, db = threading.Lock(), sqlite3.connect(os.environ["DATABASE"], check_same_thread=False)
db.execute("CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY)")
db.execute("CREATE TABLE IF NOT EXISTS latest (entity TEXT PRIMARY KEY, sequence INTEGER, event TEXT)")
UPSERT = """INSERT INTO latest VALUES (?, ?, ?) ON CONFLICT (entity) DO UPDATE
    SET sequence = excluded.sequence, event = excluded.event WHERE excluded.sequence >= latest.sequence"""


def answer(headers, body):
    try:  # covers key, time and body; Agora's signature covers the body only
        webhook.verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        return 401  # tried again: a wrong secret is a fault of ours and must cost no events
    signature = headers.get("Agora-Signature-V2", "").encode()
    macs = [hmac.digest(s, body, hashlib.sha256).hex().encode() for s in secrets]
    if secrets and not any(hmac.compare_digest(mac, signature) for mac in macs):
        return 401
    if "Ncs-Relay-Test" in headers:  # an operator tries the sink
        return 200
    key = headers["webhook-id"]  # the event id; on a replay "<event id>-r1", as it is to be done again
    entity, event = urllib.parse.unquote(headers.get("Ncs-Relay-Entity", "")), headers["Ncs-Relay-Event"]
    try:
        sequence = json.loads(body)["payload"].get("sequence", 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return 422  # a dead letter at once: it will never be understood
    try:
        with lock, db:  # one transaction: the key is never there without what was done, nor the other way round
            if db.execute("INSERT INTO done VALUES (?) ON CONFLICT DO NOTHING", [key]).rowcount == 0:
                return 200  # done before
            newer = db.execute(UPSERT, [entity, sequence, event]).rowcount
    except sqlite3.Error:
        return 503  # tried again
    print(f"done {key} {entity} {sequence} {event}{'' if newer else ' late'}\n", end="", flush=True)
    return 200


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.send_response(answer(self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_header("Content-Length", "0")
        self.end_headers()


ThreadingHTTPServer(("", int(os.environ["PORT"])), Receiver).serve_forever()
