package httpsink

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"ncs-relay/relay"
)

// fixedHeaders are the same for every call. cfg holds the secrets of its files too.
func fixedHeaders(cfg *Config, userAgent string) http.Header {
	h := http.Header{"User-Agent": {userAgent}}
	for name, value := range cfg.Headers {
		h.Set(name, value.Reveal())
	}
	if cfg.BearerToken.IsSet() {
		h.Set("Authorization", "Bearer "+cfg.BearerToken.Reveal())
	}
	if cfg.BasicAuth != nil {
		h.Set("Authorization", "Basic "+credentials(cfg.BasicAuth.Username, cfg.BasicAuth.Password.Reveal()))
	}
	return h
}

// credentials are those of basic authentication as they are sent.
func credentials(username, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
}

// header is what one call carries. What the event does not have is left out, as it was when Agora called.
func (c *client) header(a relay.Attempt, cloudEvents bool, now time.Time) http.Header {
	h := make(http.Header, len(c.fixed)+mostSet)
	maps.Copy(h, c.fixed)
	values := make([]string, 0, mostSet) // one allocation, not one a header
	set := func(name, value string) {
		if value != "" {
			values = append(values, value)
			h[name] = values[len(values)-1 : len(values) : len(values)] // names below are in canonical form
		}
	}
	id, key, receivedAt := a.ID.String(), idempotencyKey(a), a.ReceivedAt.UTC().Format(rfc3339Milli)
	set("Content-Type", a.ContentType)
	set("Agora-Signature", a.SignatureV1)
	set("Agora-Signature-V2", a.SignatureV2)
	set("Ncs-Relay-Event-Id", id)
	set("Ncs-Relay-Product", a.Info.Product)
	set("Ncs-Relay-Event", a.Info.Event)
	if a.Info.Event != "" {
		set("Ncs-Relay-Event-Type", strconv.Itoa(a.Info.EventType))
	}
	set("Ncs-Relay-Category", a.Info.Category)
	set("Ncs-Relay-Entity", percentEncode(a.Entity))
	set("Ncs-Relay-Source", a.Source)
	set("Ncs-Relay-Received-At", receivedAt)
	set("Ncs-Relay-Attempt", strconv.Itoa(a.Number))
	if a.Replay > 0 {
		set("Ncs-Relay-Replay", strconv.FormatUint(uint64(a.Replay), 10))
	}
	if a.Test {
		set("Ncs-Relay-Test", "true")
	}
	set("Idempotency-Key", key)
	set("Traceparent", a.Traceparent)
	if len(c.webhookKeys) > 0 {
		timestamp := strconv.FormatInt(now.Unix(), 10)
		set("Webhook-Id", key)
		set("Webhook-Timestamp", timestamp)
		set("Webhook-Signature", c.webhookSignatures(key, timestamp, a.Body))
	}
	if cloudEvents {
		set("Ce-Specversion", "1.0")
		set("Ce-Id", id)
		set("Ce-Source", "/ncs/"+percentEncode(a.Source))
		set("Ce-Type", "agora.ncs."+a.Info.Product+"."+a.Info.Event)
		set("Ce-Subject", percentEncode(a.Entity))
		set("Ce-Time", receivedAt)
	}
	return h
}

const mostSet = 24 // headers that header sets

const rfc3339Milli = "2006-01-02T15:04:05.000Z07:00"

// idempotencyKey is the event's id. A replay is meant to get through a receiver's own check for duplicates, so it has
// a key of its own.
func idempotencyKey(a relay.Attempt) string {
	key := a.ID.String()
	if a.Replay > 0 {
		key += "-r" + strconv.FormatUint(uint64(a.Replay), 10)
	}
	return key
}

// percentEncode leaves only the unreserved characters of RFC 3986, so that every decoder gives s back, those of forms
// (where + is a space) included.
func percentEncode(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// webhookSignatures are the signatures of a call by every key, in the form of standardwebhooks.com.
func (c *client) webhookSignatures(id, timestamp string, body []byte) string {
	signatures := make([]string, 0, len(c.webhookKeys))
	for _, key := range c.webhookKeys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(signatures, " ")
}
