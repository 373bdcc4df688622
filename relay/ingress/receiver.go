package ingress

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/telemetry"
	"ncs-relay/relay/trail"
)

// storeTimeout is how long a notification waits for a journal that cannot take it at the moment, unless it is a journal.Patient. NCS
// tries only three more times and the first at once, so a short wait saves attempts; it gives up on us after 10 s.
const storeTimeout = 5 * time.Second

// endsWithin is how long after its time an append is waited for, to be told how it ended. With a journal that takes 7 s it leaves
// 0.2 s of P2's 8 for the way, and for a machine that has much to do.
const endsWithin = 800 * time.Millisecond

// answersWithin is how long after its body a call is answered at the latest. Of a large body bodyWait may have passed before, for its
// share of memory.
func (h *Ingress) answersWithin(size int) time.Duration {
	if size > uncountedBody {
		return storeTimeout + endsWithin
	}
	return h.storeFor + endsWithin
}

// source is one ingress path, ready to serve.
type source struct {
	SourceConfig
	verifier *ncs.Verifier
	intake   *Intake
	account  journal.SourceAccount
	metrics  *sourceMetrics
	log      *slog.Logger

	quarantined, unsigned, unavailable telemetry.Repetition
}

// answer is what a caller gets.
type answer struct {
	status  int
	outcome string // for metrics: accepted, duplicate ...
	reason  string // for metrics, from a bounded set; "" where the outcome says it all
	text    string // of errors
	event   ncs.EventID
	allow   string // the Allow header of a 405
	leads   bool   // the call led an append, whose end is booked by the journal or by store
}

// book enters the call's outcome into the source's account.
func (a *answer) book(account journal.SourceAccount) {
	switch {
	case a.leads:
	case a.outcome == outcomeRejected:
		account.Rejected()
	case a.outcome == outcomeUnavailable:
		account.Unavailable()
	case a.outcome == outcomeTest:
		account.Test()
	case a.outcome == outcomeDuplicate:
		account.Duplicate()
	}
}

func newSource(c SourceConfig, catalogue *ncs.Catalogue, account journal.SourceAccount, m *metrics, log *slog.Logger) (*source, error) {
	configured := c.Resolved
	if configured == nil {
		configured = c.Secrets
	}
	secrets := make([]string, len(configured))
	for i, s := range configured {
		secrets[i] = s.Reveal()
	}
	verifier, err := ncs.NewVerifier(secrets, c.Signature == "any")
	if err != nil {
		return nil, err
	}
	intake, err := NewIntake(c, catalogue)
	if err != nil {
		return nil, err
	}
	return &source{SourceConfig: c, verifier: verifier, intake: intake, account: account, metrics: m.forSource(c.Name, len(secrets)),
		log: log.With("source", c.Name)}, nil
}

func refuse(status int, reason, text string) answer {
	return answer{status: status, outcome: outcomeRejected, reason: reason, text: text}
}

// invalidSignature is one answer for all that can be wrong with a signature, so that nobody learns what was.
var invalidSignature = refuse(http.StatusUnauthorized, reasonSignature, "invalid signature")

// ServeHTTP is the ingress: each source's path takes notifications, every other path is 404.
func (h *Ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	in := h.setup.Load()
	src := in.sources[r.URL.Path]
	if src == nil {
		h.metrics.unknownPath.Add(1)
		write(w, answer{status: http.StatusNotFound, text: "no source has this path"})
		return
	}
	src.account.Received()
	var c call
	a := h.receive(in, src, r, &c)
	a.book(src.account)
	src.logUnavailable(&a, arrived)
	h.trace(src, r, &c, &a, arrived)
	src.metrics.count(a)
	src.metrics.accept.Record(time.Since(arrived))
	write(w, a)
}

// receive is the path of a notification. The order of its steps is the design: nothing is parsed, looked up or
// stored for a caller who has not signed, and no key counts as known before its event is on disk.
func (h *Ingress) receive(in *setup, src *source, r *http.Request, c *call) (a answer) {
	body, refused := readBody(r, src.MaxBody)
	if refused != nil {
		return *refused
	}
	signature, ok := src.verifier.Verify(body, r.Header.Values(ncs.HeaderV1), r.Header.Values(ncs.HeaderV2))
	if !ok {
		src.logUnsigned(r)
		return invalidSignature
	}
	src.metrics.signatures[signature].Add(1)
	received := time.Now()
	c.match, c.verified = signature, received
	if !in.admit(received.Add(h.storeFor)) {
		return unavailable(errBusy)
	}
	defer in.release()

	rec := &journal.Record{
		Time:        received,
		Source:      src.Name,
		ContentType: r.Header.Get("Content-Type"),
		SignatureV1: r.Header.Get(ncs.HeaderV1),
		SignatureV2: r.Header.Get(ncs.HeaderV2),
		Body:        body,
	}
	reading := src.intake.Read(body)
	n, id := reading.Notification, reading.Identity
	c.id = id.ID
	switch {
	case reading.Quarantine != "":
		rec.Quarantine = reading.Quarantine
		rec.Sinks = []string{relay.Unroutable}
	case reading.Test:
		if src.debugs() {
			src.log.Debug("test", "event", id.ID)
		}
		return answer{status: http.StatusOK, outcome: outcomeTest}
	}
	rec.Key, rec.ID = id.Key, id.ID

	claim, standing := h.claim(id, received.Add(h.storeFor))
	c.standing, c.claimed = standing, time.Now()
	switch standing {
	case isLoading:
		return unavailable(errBusy)
	case isKnown:
		return h.duplicate(src, id, standing, received)
	case isNew:
		if n != nil {
			c.sinks, c.routed = h.describe(in, rec, n), time.Now()
		}
		span := h.tracing.Accepted(id.ID)
		rec.SpanID, rec.TraceFlags = span.SpanID(), byte(span.TraceFlags())
		c.leads = true
		h.store(claim, rec, received, src.account)
		defer func() { a.leads = true }()
	}

	// The append owns the claim from here on, not this call: it goes on when the caller hangs up or the wait ends,
	// and every copy that came meanwhile shares its fate.
	wait := h.timers.Get().(*time.Timer)
	wait.Reset(time.Until(received.Add(h.answersWithin(len(body)))))
	defer h.timers.Put(wait)
	defer wait.Stop()
	select {
	case <-claim.done:
	case <-wait.C:
		return unavailable(errBusy)
	}
	switch {
	case claim.err != nil:
		c.leads = false // nothing will be delivered as its child
		return unavailable(claim.err)
	case standing == isInFlight:
		return h.duplicate(src, id, standing, received)
	}
	c.position, c.appended = claim.position, time.Now()
	return h.accepted(src, rec, n, claim, c.sinks)
}

// newStoppedTimer makes what Ingress.timers hold.
func newStoppedTimer() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// admit waits for one of the places of limits.in_flight. They are given out after the signature was verified, so that
// strangers and slow senders cannot hold them.
func (in *setup) admit(until time.Time) bool {
	select {
	case in.places <- struct{}{}:
		return true
	default:
	}
	wait := time.NewTimer(time.Until(until))
	defer wait.Stop()
	select {
	case in.places <- struct{}{}:
		return true
	case <-wait.C:
		return false
	}
}

func (in *setup) release() { <-in.places }

// readBody takes the whole body, bounded, or says why not. Memory grows with what arrives, not with what is announced.
func readBody(r *http.Request, most int64) ([]byte, *answer) {
	if r.Method != http.MethodPost {
		a := refuse(http.StatusMethodNotAllowed, reasonMethod, "only POST is taken here")
		a.allow = http.MethodPost
		return nil, &a
	}
	if slices.ContainsFunc(r.Header.Values("Content-Encoding"), compresses) {
		a := refuse(http.StatusUnsupportedMediaType, reasonCompressed, "compressed bodies are not taken")
		return nil, &a
	}
	if r.ContentLength > most {
		return nil, tooLarge(most)
	}
	if n := r.ContentLength; 0 < n && n <= uncountedBody { // nearly all
		body := make([]byte, n)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, &incomplete
		}
		return body, nil
	}
	var buf bytes.Buffer
	n, err := buf.ReadFrom(io.LimitReader(r.Body, most+1))
	switch {
	case errors.Is(err, errBusy):
		a := unavailable(errBusy)
		return nil, &a
	case err != nil:
		return nil, &incomplete
	case n > most:
		return nil, tooLarge(most)
	}
	return buf.Bytes(), nil
}

func tooLarge(most int64) *answer {
	a := refuse(http.StatusRequestEntityTooLarge, reasonTooLarge, fmt.Sprintf("the body is larger than %d bytes", most))
	return &a
}

var incomplete = refuse(http.StatusBadRequest, reasonBody, "the body did not arrive whole")

func compresses(encoding string) bool {
	return encoding != "" && !strings.EqualFold(encoding, "identity")
}

// claim asks the deduplication, and waits if the answer depends on keys that are still being loaded.
func (h *Ingress) claim(id ncs.Identity, until time.Time) (*claim, standing) {
	c, s := h.dedup.claim(id)
	if s != isLoading {
		return c, s
	}
	wait := time.NewTimer(time.Until(until))
	defer wait.Stop()
	select {
	case <-h.dedup.loaded():
		return h.dedup.claim(id)
	case <-wait.C:
		return nil, isLoading
	}
}

// describe fills in what the notification says of itself, and decides which sinks are owed the event.
func (h *Ingress) describe(in *setup, rec *journal.Record, n *ncs.Notification) (sinks []string) {
	rec.ProductID, rec.EventType, rec.Entity = n.Info.ProductID, n.Info.EventType, n.Entity
	result := in.router.Route(n, rec.Source, rec.Time)
	for _, e := range result.Errors {
		in.ruleErrors[e.Rule].Add(1)
		if suppressed, ok := h.ruleLog.Allow(rec.Time); ok {
			h.log.Warn("rule failed on an event and counts as not matching", "source", rec.Source, "rule", e.Rule,
				"event", ncs.EventID(rec.ID), "error", e.Err, "suppressed", suppressed)
		}
	}
	if len(result.Sinks) == 0 {
		h.metrics.unmatched.Add(1)
	}
	rec.Sinks = result.Sinks
	if h.log.Enabled(context.Background(), slog.LevelDebug) {
		h.logRules(in, rec, n)
	}
	return result.Sinks
}

// logRules says of each rule whether it applied. Asking again costs as much as routing: it is for debug level only.
func (h *Ingress) logRules(in *setup, rec *journal.Record, n *ncs.Notification) {
	for _, v := range in.router.Explain(n, rec.Source, rec.Time) {
		h.log.Debug("rule", "source", rec.Source, "event", ncs.EventID(rec.ID), "rule", v.Rule, "applies", v.Applies, "to", v.To, "why", v.Why)
	}
}

// store appends rec and settles the claim with the outcome. It returns as soon as the append is queued. A fault that
// may pass, such as a journal that starts a new segment or a full queue, is tried again until the deadline; a full disk is told at once.
func (h *Ingress) store(c *claim, rec *journal.Record, began time.Time, account journal.SourceAccount) {
	s := &storing{h, c, rec, account, time.Now(), began.Add(h.storeFor)}
	s.try()
}

// storing is an append on its way.
type storing struct {
	h       *Ingress
	claim   *claim
	rec     *journal.Record
	account journal.SourceAccount
	queued  time.Time
	until   time.Time // a fault may pass
}

// atOnce is the context of appends that do not wait for room: there is one each time somebody calls, so it must cost nothing.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (s *storing) try() {
	switch err := s.h.journal.Append(atOnce, s.rec, s.appended); {
	case errors.Is(err, context.Canceled):
		s.appended(journal.Position{}, errBusy)
	case err != nil:
		s.settle(err)
	}
}

func (s *storing) appended(p journal.Position, err error) {
	if err == nil {
		s.claim.position = p
		s.h.metrics.appended.Record(time.Since(s.queued))
	}
	if err == nil || errors.Is(err, journal.ErrFull) || errors.Is(err, journal.ErrClosed) || !time.Now().Before(s.until) {
		s.settle(err)
		return
	}
	time.AfterFunc(retryAppend, s.try)
}

func (s *storing) settle(err error) {
	if err != nil {
		s.account.Unavailable()
	} else {
		s.h.listeners.offer(s.rec)
	}
	s.h.dedup.settle(s.claim, err)
}

// retryAppend is the pause before an append that met a passing fault is tried again.
const retryAppend = 100 * time.Millisecond

var errBusy = errors.New("no room or not on disk in time")

func unavailable(err error) answer {
	a := answer{status: http.StatusServiceUnavailable, outcome: outcomeUnavailable, reason: reasonJournal, text: "cannot store at the moment"}
	switch {
	case errors.Is(err, journal.ErrFull):
		a.reason, a.text = reasonFull, "cannot store: no space"
	case errors.Is(err, errBusy):
		a.reason = reasonBusy
	}
	return a
}

func (h *Ingress) duplicate(src *source, id ncs.Identity, standing standing, received time.Time) answer {
	src.metrics.hits[standing].Add(1)
	src.metrics.copyAge.Record(h.dedup.ageOf(id.Key))
	if src.debugs() {
		src.log.Debug("duplicate", "event", id.ID, "standing", standing)
	}
	h.trail.Note(trail.Entry{Event: trail.ID(id.ID), What: trail.Copy, At: received, Source: src.Name, Standing: standing.String()})
	return answer{status: http.StatusOK, outcome: outcomeDuplicate, event: id.ID}
}

func (h *Ingress) accepted(src *source, rec *journal.Record, n *ncs.Notification, c *claim, sinks []string) answer {
	a := answer{status: http.StatusOK, outcome: outcomeAccepted, event: c.identity.ID}
	if n == nil {
		src.logQuarantine(c.identity.ID, rec)
		a.outcome, a.reason = outcomeQuarantined, rec.Quarantine
		return a
	}
	if c.conflict {
		a.reason = reasonConflict
	}
	if at, ok := n.OccurredAt(); ok {
		src.metrics.delay.Record(max(0, rec.Time.Sub(at)))
		if h.order.late(rec.Entity, at) {
			src.metrics.outOfOrder.Add(1)
		}
	}
	if src.debugs() {
		src.log.Debug("accepted", "event", c.identity.ID, "entity", rec.Entity, "position", c.position, "sinks", sinks)
	}
	return a
}

func (src *source) debugs() bool { return src.log.Enabled(context.Background(), slog.LevelDebug) }

// logUnsigned is a line a minute for each source: anybody can call.
func (src *source) logUnsigned(r *http.Request) {
	src.log.Debug("invalid signature", "remote", r.RemoteAddr)
	if suppressed, ok := src.unsigned.Allow(time.Now()); ok {
		src.log.Warn("call refused: its signature is missing or wrong", "remote", r.RemoteAddr, "suppressed", suppressed)
	}
}

// logUnavailable is a line a minute for each source.
func (src *source) logUnavailable(a *answer, now time.Time) {
	if a.outcome != outcomeUnavailable {
		return
	}
	if suppressed, ok := src.unavailable.Allow(now); ok {
		src.log.Warn("notification answered 503: "+a.text, "reason", a.reason, "suppressed", suppressed)
	}
}

// logQuarantine is a line a minute for each source: a product that the source does not take can be half of its traffic.
func (src *source) logQuarantine(event ncs.EventID, rec *journal.Record) {
	src.log.Debug("quarantined", "event", event, "reason", rec.Quarantine)
	if suppressed, ok := src.quarantined.Allow(rec.Time); ok {
		src.log.Warn("signed body is not a notification; quarantined", "event", event, "reason", rec.Quarantine, "suppressed", suppressed)
	}
}

var jsonType = []string{"application/json"}

// write sends the answer. The bodies hold nothing that needs escaping.
func write(w http.ResponseWriter, a answer) {
	h := w.Header()
	h["Content-Type"] = jsonType
	if a.allow != "" {
		h.Set("Allow", a.allow)
	}
	w.WriteHeader(a.status)
	switch {
	case a.status != http.StatusOK:
		io.WriteString(w, `{"error":"`+a.text+`"}`)
	case a.outcome == outcomeTest:
		io.WriteString(w, `{"status":"test"}`)
	default:
		var room [96]byte
		body := append(append(append(room[:0], `{"status":"`...), a.outcome...), `","event":"`...)
		w.Write(append(hex.AppendEncode(body, a.event[:]), `"}`...))
	}
}
