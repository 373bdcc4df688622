package simulate

import (
	"fmt"
	"net/http"
	"strings"

	"ncs-relay/relay/ncs"
)

// maxFailures are kept of a run; the rest is counted only.
const maxFailures = 20

// WrongGivenUp is what failed when no attempt was answered 200.
const WrongGivenUp = "a notification was not answered 200 in four attempts"

// Failure is one answer that no right receiver gives, and what to do about it.
type Failure struct {
	What    string `json:"what"` // one of the Wrong constants
	Product string `json:"product"`
	Event   string `json:"event"`
	Entity  string `json:"entity"`
	Status  int    `json:"status"`           // 0 = no answer
	Answer  string `json:"answer,omitempty"` // its beginning, or why there is none
	Hint    string `json:"hint"`             // what to do
}

// String is the failure in one line.
func (f Failure) String() string {
	status := "no answer"
	if f.Status > 0 {
		status = fmt.Sprintf("answered %d", f.Status)
	}
	return fmt.Sprintf("%s: %s.%s of %s, %s %s", f.What, f.Product, f.Event, f.Entity, status, f.Answer)
}

// failed keeps an example of what went wrong.
func (p *player) failed(what, entity string, body []byte, status int, answer []byte) {
	const shown = 160
	f := Failure{What: what, Entity: entity, Status: status, Answer: strings.ToValidUTF8(string(answer[:min(len(answer), shown)]), "?"), Hint: hintFor(what, status)}
	if n, err := ncs.Builtin().Parse(body); err == nil {
		f.Product, f.Event = n.Info.Product, n.Info.Event
	}
	p.tally.add(func(t *Tally) {
		if len(t.Failures) < maxFailures {
			t.Failures = append(t.Failures, f)
		}
	})
}

// hintFor says what to do about a failure.
func hintFor(what string, status int) string {
	switch {
	case what == WrongForgedTaken:
		return "check Agora-Signature-V2 over the raw bytes of the body, before anything is parsed, and answer 401 where it does not fit"
	case what == WrongAcceptedTwice, what == WrongTwoIDs:
		return "tell copies by what stays the same in each sending, not by notifyMs or the signature, which change"
	case what == WrongNotTaken:
		return "see why with ncs-relay route, or in the dead letters of unroutable"
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "is it the receiver's secret? ncs-relay verify says what is wrong with a signature; the body must be checked as it came, byte for byte"
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		return "is the path of the URL right?"
	case status >= 300 && status < 400:
		return "redirects are not followed: give the URL that they lead to"
	case status == 0:
		return "does anybody listen there, and does it answer within 10 s? Answer first and work later"
	case status >= 500:
		return "see the receiver's log: an event that it does not know, or has already, must be answered 200 too"
	}
	return "answer 200: every other status makes Agora send it again"
}
