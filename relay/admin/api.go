package admin

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// Operations are what operators can see and do; *gateway.Gateway has them. They are called concurrently. An error that is
// gateway.ErrNoSink or gateway.ErrNotFound is answered with 404, gateway.ErrConfigured, gateway.ErrCannotMove, gateway.ErrMoves,
// gateway.ErrNotAfter or gateway.ErrReserved with 409; every other one is a fault.
type Operations interface {
	Catalogue() *ncs.Catalogue
	Sinks() []gateway.SinkStatus
	PauseSink(ctx context.Context, name, reason string, until time.Time) error
	ResumeSink(ctx context.Context, name string) error
	MoveSink(ctx context.Context, from, to string) (moved, skipped uint64, err error)
	DropSink(ctx context.Context, name string, after uint32, ends *journal.Ends) (uint64, error)

	Pending(f relay.Filter, page gateway.Page, n int) ([]gateway.Delivery, *gateway.Page, error)
	SkipPending(ctx context.Context, f relay.Filter, ends *journal.Ends) (int, error)
	DeadLetters(f relay.Filter, page gateway.Page, n int) ([]gateway.DeadLetter, *gateway.Page, error)
	DeadLetter(sink string, position journal.Position) (gateway.DeadLetter, error)
	DropDeadLetters(f relay.Filter, ends *journal.Ends) (int, error)
	DeadLetterGroups(ctx context.Context, f relay.Filter) ([]gateway.LetterGroup, error)

	Replay(ctx context.Context, req gateway.ReplayRequest) (gateway.ReplayResult, error)
	Replays() []gateway.ReplayStatus
	CancelReplay(ctx context.Context, id uint32) error
	Listen(f relay.Filter) (*ingress.Listener, error)
	Heard(r *journal.Record) gateway.Heard
	Inspect(ctx context.Context, f relay.Filter, n int) ([]gateway.Life, bool, error)

	Audit(l gateway.Lever)
}

var _ Operations = (*gateway.Gateway)(nil)

// answerTimeout is for the answer to go out, counted from when it is there: an operation may take longer than a call to
// a page should.
const answerTimeout = 30 * time.Second

// operation does what a request asks for and gives the answer to be encoded; nil is no content.
type operation func(r *http.Request, body []byte) (any, error)

// api are the operations by path and method. API.md describes them.
func (s *Server) api() http.Handler {
	mux := http.NewServeMux()
	for path, methods := range map[string]map[string]operation{
		"/api/v1/sinks":                          {"GET": s.listSinks},
		"/api/v1/sinks/{name}/pause":             {"POST": s.pauseSink},
		"/api/v1/sinks/{name}/resume":            {"POST": s.resumeSink},
		"/api/v1/sinks/{name}/move":              {"POST": s.moveSink},
		"/api/v1/sinks/{name}/drop":              {"POST": s.dropSink},
		"/api/v1/pending":                        {"GET": s.listPending},
		"/api/v1/pending/skip":                   {"POST": s.skipPending},
		"/api/v1/dead-letters":                   {"GET": s.listDeadLetters},
		"/api/v1/dead-letters/groups":            {"GET": s.groupDeadLetters},
		"/api/v1/dead-letters/{sink}/{position}": {"GET": s.showDeadLetter},
		"/api/v1/dead-letters/drop":              {"POST": s.dropDeadLetters},
		"/api/v1/dead-letters/replay":            {"POST": s.replayDeadLetters},
		"/api/v1/replays":                        {"GET": s.listReplays, "POST": s.replay},
		"/api/v1/replays/{id}":                   {"DELETE": s.cancelReplay},
		"/api/v1/inspect":                        {"GET": s.inspect},
	} {
		mux.Handle(path, s.operations(methods))
	}
	mux.Handle("/api/v1/status", get(s.status))
	mux.Handle("/api/v1/listen", get(s.listen))
	mux.HandleFunc("/", notFound)
	return mux
}

// operations answers the methods of one path.
func (s *Server) operations(methods map[string]operation) http.Handler {
	var allowed []string
	for method := range methods {
		allowed = append(allowed, method)
	}
	slices.Sort(allowed)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op, ok := methods[r.Method]
		if !ok {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			writeError(w, http.StatusMethodNotAllowed, "method not allowed")
			return
		}
		s.operate(w, r, op)
	})
}

// operate runs an operation, which may take its time, and answers.
func (s *Server) operate(w http.ResponseWriter, r *http.Request, op operation) {
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		writeError(w, http.StatusRequestEntityTooLarge, "the body is too large")
		return
	case err != nil:
		writeError(w, http.StatusBadRequest, "the body broke off")
		return
	}
	say := s.answersFor(w, r)
	answer, err := s.everywhere(r, body, op)
	say()
	// The server's time-out counts from the request, and an operation may take longer. It ends when the client hangs up.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
	switch {
	case err != nil:
		s.fail(w, r, err)
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

// fail answers an error by its kind. Whoever gets here may see everything, so the text of a fault is told, too.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status == http.StatusInternalServerError && r.Context().Err() == nil { // else nobody waits for the answer
		s.options.Log.Error("admin request", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	writeError(w, status, err.Error())
}

// statusOf is the answer to an error: 500 for a fault, another when nothing was done.
func statusOf(err error) int {
	var bad *requestError
	switch {
	case errors.As(err, &bad):
		return http.StatusBadRequest
	case errors.Is(err, gateway.ErrNoSink), errors.Is(err, gateway.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, gateway.ErrListeners):
		return http.StatusTooManyRequests
	case errors.Is(err, gateway.ErrConfigured), errors.Is(err, gateway.ErrCannotMove), errors.Is(err, gateway.ErrMoves),
		errors.Is(err, gateway.ErrNotAfter), errors.Is(err, gateway.ErrReserved):
		return http.StatusConflict
	case errors.Is(err, errNotBegun):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// pull does something for the caller of r, and keeps that it was done.
func (s *Server) pull(r *http.Request, l gateway.Lever, do func(*gateway.Lever) error) error {
	l.At = time.Now()
	err := do(&l)
	return s.audit(r, l, err)
}

// audit keeps that the caller of r did something, with what came of it, which it returns. What was refused was not done.
func (s *Server) audit(r *http.Request, l gateway.Lever, err error) error {
	if err == nil || statusOf(err) == http.StatusInternalServerError {
		l.By, l.Err = s.caller(r), err
		s.options.Gateway.Audit(l)
	}
	return err
}

func (s *Server) listSinks(r *http.Request, _ []byte) (any, error) {
	if err := readQuery(r, new(queryInput)); err != nil {
		return nil, err
	}
	return sinkList{orEmpty(s.options.Gateway.Sinks())}, nil
}

func (s *Server) pauseSink(r *http.Request, body []byte) (any, error) {
	var in struct {
		Reason string  `json:"reason"`
		For    *string `json:"for"`
	}
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	until, err := pauseEnd(in.For, time.Now())
	if err != nil {
		return nil, err
	}
	if in.Reason == "" {
		in.Reason = "by an operator"
	}
	name := r.PathValue("name")
	reason := in.Reason
	if in.For != nil {
		reason += " (for " + *in.For + ")"
	}
	return nil, s.pull(r, gateway.Lever{Action: gateway.ActionPause, Sink: name, Reason: reason}, func(*gateway.Lever) error {
		return s.options.Gateway.PauseSink(r.Context(), name, in.Reason, until)
	})
}

// pauseEnd is when a pause ends that was given a duration, in whole seconds, which is what the journal keeps.
func pauseEnd(given *string, now time.Time) (time.Time, error) {
	if given == nil {
		return time.Time{}, nil
	}
	const most = 365 * 24 * time.Hour
	d, err := time.ParseDuration(*given)
	if err != nil || d < time.Second || d > most {
		return time.Time{}, badf("for: %q is not a duration from 1s to %dh, such as 90m or 2h", *given, int(most.Hours()))
	}
	return now.Add(d).Truncate(time.Second), nil
}

func (s *Server) resumeSink(r *http.Request, body []byte) (any, error) {
	if err := decode(body, &struct{}{}); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	return nil, s.pull(r, gateway.Lever{Action: gateway.ActionResume, Sink: name}, func(*gateway.Lever) error {
		return s.options.Gateway.ResumeSink(r.Context(), name)
	})
}

func (s *Server) moveSink(r *http.Request, body []byte) (any, error) {
	var in struct {
		To string `json:"to"`
	}
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	if in.To == "" {
		return nil, badf("to: the sink that takes the deliveries is needed")
	}
	name := r.PathValue("name")
	var moved, skipped uint64
	err := s.pull(r, gateway.Lever{Action: gateway.ActionMove, Sink: name, To: in.To}, func(l *gateway.Lever) (err error) {
		moved, skipped, err = s.options.Gateway.MoveSink(r.Context(), name, in.To)
		l.Count = moved + skipped
		return err
	})
	return map[string]uint64{"moved": moved, "skipped": skipped}, err
}

func (s *Server) dropSink(r *http.Request, body []byte) (any, error) {
	var in struct {
		After *uint32 `json:"after"`
	}
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	l := gateway.Lever{Action: gateway.ActionDrop, Sink: name}
	if in.After != nil {
		if l.Replay = *in.After; l.Replay == 0 {
			return nil, badf("after: 0 is not the number of a replay")
		}
	}
	return s.pullBulk(r, l, "dropped", func(ends *journal.Ends) (uint64, error) {
		return s.options.Gateway.DropSink(r.Context(), name, l.Replay, ends)
	})
}

func (s *Server) listPending(r *http.Request, _ []byte) (any, error) {
	l, err := s.readList(r, "sink", "source", "product", "event", "entity", "id", "since", "until", "limit", "cursor")
	if err != nil {
		return nil, err
	}
	list, next, err := s.options.Gateway.Pending(l.filter, l.page, l.limit)
	return pendingList{orEmpty(list), cursor(next)}, err
}

func (s *Server) listDeadLetters(r *http.Request, _ []byte) (any, error) {
	l, err := s.readList(r, "sink", "source", "product", "event", "entity", "id", "reason", "since", "until", "limit", "cursor")
	if err != nil {
		return nil, err
	}
	list, next, err := s.options.Gateway.DeadLetters(l.filter, l.page, l.limit)
	return letterList{orEmpty(list), cursor(next)}, err
}

func (s *Server) groupDeadLetters(r *http.Request, _ []byte) (any, error) {
	l, err := s.readList(r, "sink", "source", "product", "event", "entity", "id", "reason", "since", "until")
	if err != nil {
		return nil, err
	}
	groups, err := s.options.Gateway.DeadLetterGroups(r.Context(), l.filter)
	return groupList{orEmpty(groups)}, err
}

// Letter is the answer to GET /api/v1/dead-letters/{sink}/{position}: with the body, as text where it is UTF-8.
type Letter struct {
	gateway.DeadLetter
	gateway.Content
}

func (s *Server) showDeadLetter(r *http.Request, _ []byte) (any, error) {
	if err := readQuery(r, new(queryInput)); err != nil {
		return nil, err
	}
	position, err := journal.ParsePosition(r.PathValue("position"))
	if err != nil {
		return nil, badf("%s", err)
	}
	d, err := s.options.Gateway.DeadLetter(r.PathValue("sink"), position)
	if err != nil {
		return nil, err
	}
	return Letter{d, gateway.ContentOf(d.Body)}, nil
}

// bulkInput is a change of everything that a filter selects.
type bulkInput struct {
	filterInput
	All    bool `json:"all"`     // everything, as there is no filter
	DryRun bool `json:"dry_run"` // count only
}

// selected returns the filter of a change, which must be told apart from a filter that was forgotten.
func (in bulkInput) selected(c *ncs.Catalogue) (relay.Filter, error) {
	switch {
	case in.isEmpty() && !in.All:
		return relay.Filter{}, badf(`a filter is needed, or "all": true`)
	case !in.isEmpty() && in.All:
		return relay.Filter{}, badf("all: a filter is given, too")
	}
	return in.filter(c)
}

// skipPending wants more than the sink, which is needed anyway: settling all that a sink is owed is asked for in words.
func (s *Server) skipPending(r *http.Request, body []byte) (any, error) {
	var in bulkInput
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	if in.Sink == nil {
		return nil, badf("sink: needed")
	}
	rest := in
	rest.Sink = nil
	if _, err := rest.selected(s.options.Gateway.Catalogue()); err != nil {
		return nil, err
	}
	f, err := in.filter(s.options.Gateway.Catalogue())
	if err != nil {
		return nil, err
	}
	if f.Reason != "" {
		return nil, badf("reason: only dead letters have one")
	}
	if in.DryRun {
		return countAll(r.Context(), f, s.options.Gateway.Pending)
	}
	return s.pullBulk(r, bulkLever(gateway.ActionSkip, f), "skipped", func(ends *journal.Ends) (uint64, error) {
		n, err := s.options.Gateway.SkipPending(r.Context(), f, ends)
		return uint64(n), err
	})
}

func (s *Server) dropDeadLetters(r *http.Request, body []byte) (any, error) {
	var in bulkInput
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	f, err := in.selected(s.options.Gateway.Catalogue())
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		return countAll(r.Context(), f, s.options.Gateway.DeadLetters)
	}
	return s.pullBulk(r, bulkLever(gateway.ActionDropDeadLetters, f), "dropped", func(ends *journal.Ends) (uint64, error) {
		n, err := s.options.Gateway.DropDeadLetters(f, ends)
		return uint64(n), err
	})
}

// bulkLever is one that is done to what a filter selects.
func bulkLever(action gateway.Action, f relay.Filter) gateway.Lever {
	l := gateway.Lever{Action: action, Sink: f.Sink, Filter: f}
	l.Filter.Sink = ""
	return l
}

// pullBulk is pull for what is done to a number of deliveries; the answer has it under done.
func (s *Server) pullBulk(r *http.Request, l gateway.Lever, done string, do func(*journal.Ends) (uint64, error)) (any, error) {
	ends, err := s.endsOf(r)
	if err != nil {
		return nil, err
	}
	var n uint64
	err = s.pull(r, l, func(l *gateway.Lever) (err error) {
		n, err = do(ends)
		l.Count = n
		return err
	})
	return map[string]uint64{done: n}, err
}

// countedAtOnce is for counting, where a page for people would make a method begin again too often.
const countedAtOnce = 20_000

// countAll counts what a listing method gives.
func countAll[T any](ctx context.Context, f relay.Filter, list func(relay.Filter, gateway.Page, int) ([]T, *gateway.Page, error)) (any, error) {
	n := 0
	for next := new(gateway.Page); next != nil; {
		var found []T
		var err error
		if found, next, err = list(f, *next, countedAtOnce); err != nil {
			return nil, err
		}
		if n += len(found); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return map[string]int{"matched": n}, nil
}

// replayInput asks for deliveries to be made again.
type replayInput struct {
	bulkInput
	To          *string  `json:"to"`
	DeadLetters bool     `json:"dead_letters"`
	Pending     bool     `json:"pending"`
	Rate        *float64 `json:"rate"`
}

func (s *Server) replay(r *http.Request, body []byte) (any, error) {
	var in replayInput
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	return s.startReplay(r, in)
}

func (s *Server) replayDeadLetters(r *http.Request, body []byte) (any, error) {
	in := replayInput{DeadLetters: true}
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	if !in.DeadLetters {
		return nil, badf("dead_letters: false asks for something else; post to /api/v1/replays")
	}
	return s.startReplay(r, in)
}

func (s *Server) startReplay(r *http.Request, in replayInput) (any, error) {
	f, err := in.selected(s.options.Gateway.Catalogue())
	if err != nil {
		return nil, err
	}
	req := gateway.ReplayRequest{Filter: f, DeadLetters: in.DeadLetters, Pending: in.Pending, DryRun: in.DryRun}
	switch {
	case in.Pending && (f.Sink == "" || f.Sink == relay.Unroutable || in.To == nil || *in.To == f.Sink || in.DeadLetters):
		return nil, badf("pending: what a sink is owed is for another: sink and to are needed, and dead_letters cannot be combined with it")
	case f.Reason != "" && !in.DeadLetters:
		return nil, badf("reason: only dead letters have one")
	case in.Rate != nil && (*in.Rate <= 0 || math.IsInf(*in.Rate, 0)):
		return nil, badf("rate: %v is not above 0", *in.Rate)
	case f.Sink == relay.Unroutable && (in.To != nil || in.Rate != nil):
		return nil, badf("to and rate: quarantined bodies go where the rules say, at once")
	case in.To != nil && *in.To == "":
		return nil, badf("to: empty; leave it out for the sinks that were owed the events")
	}
	if in.Rate != nil {
		req.Rate = *in.Rate
	}
	if in.To != nil {
		req.To = *in.To
	}
	elsewhere, err := s.replayElsewhere(r, in, f.Sink == relay.Unroutable)
	if err != nil {
		return nil, err
	}
	req.Elsewhere = elsewhere.Matched
	began := time.Now()
	result, err := s.options.Gateway.Replay(r.Context(), req)
	result.Routed += elsewhere.Routed
	if in.DryRun {
		return result, err
	}
	return result, s.auditReplay(r, began, req, result, err)
}

// auditReplay is audit for each replay that a request has begun; if it has begun none, for the request.
func (s *Server) auditReplay(r *http.Request, began time.Time, req gateway.ReplayRequest, result gateway.ReplayResult, err error) error {
	action := gateway.ActionReplay
	if req.DeadLetters {
		action = gateway.ActionReplayDeadLetters
	}
	l := bulkLever(action, req.Filter)
	l.At, l.To, l.Count = began, req.To, uint64(result.Routed)
	for _, begun := range result.Replays {
		l := l
		if l.To == "" {
			l.Sink = begun.Sink
		}
		l.Replay, l.Count = begun.ID, uint64(result.Matched[begun.Sink])
		_ = s.audit(r, l, nil)
	}
	if len(result.Replays) == 0 || err != nil {
		return s.audit(r, l, err)
	}
	return nil
}

func (s *Server) listReplays(r *http.Request, _ []byte) (any, error) {
	if err := readQuery(r, new(queryInput)); err != nil {
		return nil, err
	}
	return replayList{orEmpty(s.options.Gateway.Replays())}, nil
}

func (s *Server) cancelReplay(r *http.Request, body []byte) (any, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 32)
	if err != nil {
		return nil, badf("%q is not the number of a replay", r.PathValue("id"))
	}
	if err := decode(body, &struct{}{}); err != nil {
		return nil, err
	}
	return nil, s.pull(r, gateway.Lever{Action: gateway.ActionCancelReplay, Replay: uint32(id)}, func(*gateway.Lever) error {
		return s.options.Gateway.CancelReplay(r.Context(), uint32(id))
	})
}

func (s *Server) inspect(r *http.Request, _ []byte) (any, error) {
	l, err := s.readList(r, "id", "entity", "source", "product", "event", "since", "until", "limit", "body")
	if err != nil {
		return nil, err
	}
	if l.filter.ID == nil && l.filter.Entity == "" {
		return nil, badf("id or entity is needed")
	}
	if l.body && l.filter.ID == nil {
		return nil, badf("body: an id is needed")
	}
	lives, more, err := s.options.Gateway.Inspect(r.Context(), l.filter, l.limit)
	for i := range lives {
		if !l.body { // it may hold what facts do not show
			lives[i].Content = gateway.Content{}
		}
	}
	return lifeList{orEmpty(lives), more}, err
}

// orEmpty makes [] of nil, which JSON would call null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
