// Takes what ncs-relay posts: verified, each event once, a late one never undoing a later one.
// Settings: PORT, DATABASE (a file), WEBHOOK_SECRET, and NCS_SECRETS if it is to check Agora's signature as well.
package main

import (
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"consumers/books"
)

func main() {
	b, err := books.Open(os.Getenv("DATABASE"))
	check(err)
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("WEBHOOK_SECRET"))
	check(err)
	server := http.Server{Addr: ":" + os.Getenv("PORT"), ReadTimeout: 30 * time.Second}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(answer(b, webhook, r)) })
	check(server.ListenAndServe())
}

func answer(b *books.Books, webhook *standardwebhooks.Webhook, r *http.Request) int {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, 4<<20)) // the source's max_body is 1 MiB by default
	if err != nil {
		return http.StatusRequestEntityTooLarge // a dead letter at once
	}
	if webhook.Verify(body, r.Header) != nil { // covers key, time and body; Agora's signature covers the body only
		return http.StatusUnauthorized // tried again: a wrong secret is a fault of ours and must cost no events
	}
	secrets := os.Getenv("NCS_SECRETS")
	if secrets != "" && !books.Signed(body, r.Header.Get("Agora-Signature-V2"), secrets) {
		return http.StatusUnauthorized
	}
	if r.Header.Get("Ncs-Relay-Test") != "" { // an operator tries the sink
		return http.StatusOK
	}
	key := r.Header.Get("Webhook-Id") // the event id; on a replay "<event id>-r1", as it is to be done again
	entity, err := url.PathUnescape(r.Header.Get("Ncs-Relay-Entity"))
	sequence, bad := books.Sequence(body)
	if err != nil || bad != nil {
		return http.StatusUnprocessableEntity // the same: it will never be understood
	}
	if err := b.Do(key, entity, r.Header.Get("Ncs-Relay-Event"), sequence); err != nil {
		log.Print(err)
		return http.StatusServiceUnavailable // tried again
	}
	return http.StatusOK
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
