package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ncs-relay/relay/deliver"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/journal"
)

// Fleet are the relays that share a journal. Each knows the shards that it has, so what is asked of one is asked of all, and the
// answers are put together.
type Fleet struct {
	Self     string    // the name of this one
	Replicas []Replica // this one included
	Shards   int       // of the journal
}

// Sharing knows the relays that share a journal. It is asked for each request.
type Sharing interface {
	// Name is the name of this one.
	Name() string

	// Fleet returns all of them. It may ask the network.
	Fleet(ctx context.Context) (Fleet, error)

	// Held are the shards that this one can answer for: of those that it was given it may be taking some over still.
	Held() []*journal.Shard

	// Ends are where the journal's logs end; an error if that is not known of one.
	Ends(ctx context.Context) (journal.Ends, error)
}

// Replica is one of the relays that share a journal.
type Replica struct {
	Name    string
	Address string // of its admin address: host:port
	Shards  []uint32
}

// Unanswered is a part of the journal that an answer is without.
type Unanswered struct {
	Replica string   `json:"replica,omitempty"` // "" = nobody has the shards
	Shards  []uint32 `json:"shards"`
	Error   string   `json:"error"`
}

// NewClient makes what calls other replicas. They are called by the addresses that they told the group, never through a proxy.
func NewClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// asAReplica marks a request of one replica to another, which answers for its own shards.
const asAReplica = "Ncs-Relay-Replica"

// heldShards is a header of the answer: the shards that it is about. The answer has asAReplica, too: who gives it.
const heldShards = "Ncs-Relay-Shards"

// commandEnds is a header of such a request: what the command that it is about is bound by.
const commandEnds = "Ncs-Relay-Ends"

// part is what one replica answered.
type part struct {
	replica string
	answer  json.RawMessage // nil: done, and there is nothing to say
	held    []uint32        // the shards that it is about
	err     error
}

// joint is how the answers of replicas are put together; limit is how long a list may be.
type joint func(parts []part, limit int) (any, error)

// joints are those of all operations. What is not here is for the replica that was asked: a replay is one job for all (see
// replayElsewhere), and no journal of several shards moves what is owed.
var joints = map[string]joint{
	"GET /api/v1/sinks":                          joined((*sinkList).add),
	"POST /api/v1/sinks/{name}/pause":            nothing,
	"POST /api/v1/sinks/{name}/resume":           nothing,
	"POST /api/v1/sinks/{name}/drop":             joined((*counts).add),
	"GET /api/v1/pending":                        joined((*pendingList).add),
	"POST /api/v1/pending/skip":                  joined((*counts).add),
	"GET /api/v1/dead-letters":                   joined((*letterList).add),
	"GET /api/v1/dead-letters/groups":            joined((*groupList).add),
	"GET /api/v1/dead-letters/{sink}/{position}": first,
	"POST /api/v1/dead-letters/drop":             joined((*counts).add),
	"GET /api/v1/replays":                        joined((*replayList).add),
	"DELETE /api/v1/replays/{id}":                nothing,
	"GET /api/v1/inspect":                        joined((*lifeList).add),
}

// commands are the operations that each owner carries out for its shards, within the ends that the logs had when they were given. So
// they may be carried out again, by the next owner, until that was done in every shard.
var commands = []string{"POST /api/v1/sinks/{name}/drop", "POST /api/v1/pending/skip", "POST /api/v1/dead-letters/drop"}

// commandPatience is how long a command waits for shards whose owner does not answer: that may have been killed, and others have
// them when its session is over.
const commandPatience = 30 * time.Second

const commandPause = 500 * time.Millisecond

// alone reports whether a request is for this relay only: it shares no journal, or another replica asks.
func (s *Server) alone(r *http.Request) bool {
	return s.options.Sharing == nil || r.Header.Get(asAReplica) != ""
}

// everywhere runs an operation here and, where several relays share the journal, at the others. An answer that is without some
// of the shards says so, in its member "unanswered".
func (s *Server) everywhere(r *http.Request, body []byte, op operation) (any, error) {
	join, shared := joints[r.Method+" "+r.Pattern]
	if !shared || s.alone(r) {
		return op(r, body)
	}
	command := slices.Contains(commands, r.Method+" "+r.Pattern)
	if command {
		if err := s.bound(r); err != nil {
			return nil, fmt.Errorf("nothing was done: %w", err)
		}
	}
	parts, missing, err := s.round(r, body, op)
	if err != nil {
		return nil, err
	}
	if command && len(missing) > 0 {
		parts, missing = s.goOn(r, body, op, parts, missing)
	}
	answer, err := join(parts, limitOf(r))
	if err != nil || len(missing) == 0 {
		return answer, err
	}
	return with(answer, members{"unanswered": missing})
}

// bound has a command carry the ends of now.
func (s *Server) bound(r *http.Request) error {
	ends, err := s.options.Sharing.Ends(r.Context())
	if err != nil {
		return err
	}
	text, err := json.Marshal(ends)
	r.Header.Set(commandEnds, string(text))
	return err
}

// endsOf are what a command is bound by; nil: by nothing, as this relay has its journal for itself.
func (s *Server) endsOf(r *http.Request) (*journal.Ends, error) {
	text := r.Header.Get(commandEnds)
	if s.options.Sharing == nil || text == "" {
		return nil, nil
	}
	ends := new(journal.Ends)
	if err := json.Unmarshal([]byte(text), ends); err != nil {
		return nil, badf("%s: %s", commandEnds, err)
	}
	return ends, nil
}

// round runs an operation here and at the others, once.
func (s *Server) round(r *http.Request, body []byte, op operation) (parts []part, missing []Unanswered, err error) {
	fleet, err := s.options.Sharing.Fleet(r.Context())
	if err != nil {
		return nil, nil, fmt.Errorf("nothing was done: which other replicas there are is not known: %w", err)
	}
	held := s.options.Sharing.Held()
	own, ownErr := op(r, body)
	if ownErr != nil && statusOf(ownErr) != http.StatusNotFound {
		return nil, nil, ownErr // a mistake of the caller, or a fault: others would say the same, or do what this one did not
	}
	return s.collect(r, body, fleet, s.still(held), own, ownErr)
}

// goOn gives a command again until it was carried out in the shards that are missing, too: by whoever has them then.
func (s *Server) goOn(r *http.Request, body []byte, op operation, parts []part, missing []Unanswered) ([]part, []Unanswered) {
	for deadline := time.Now().Add(s.options.Patience); len(missing) > 0; {
		select {
		case <-time.After(commandPause):
		case <-r.Context().Done():
			return parts, missing
		}
		more, again, err := s.round(r, body, op)
		if err == nil {
			parts, missing = append(parts, more...), among(again, missing)
		}
		if time.Now().After(deadline) {
			return parts, missing
		}
	}
	return parts, missing
}

// among are those shards that are missing again. All others were there before.
func among(again, before []Unanswered) (missing []Unanswered) {
	for _, u := range again {
		u.Shards = slices.DeleteFunc(u.Shards, func(n uint32) bool {
			return !slices.ContainsFunc(before, func(b Unanswered) bool { return slices.Contains(b.Shards, n) })
		})
		if len(u.Shards) > 0 {
			missing = append(missing, u)
		}
	}
	return missing
}

// still are the shards that this replica has had since: what was stored there meanwhile the next owner finds.
func (s *Server) still(held []*journal.Shard) (shards []uint32) {
	now := s.options.Sharing.Held()
	for _, shard := range held {
		if slices.Contains(now, shard) {
			shards = append(shards, shard.Number)
		}
	}
	return shards
}

// collect returns what the replicas answer, this one first, which answers for the shards held: at least one of them, or why there is
// none.
func (s *Server) collect(r *http.Request, body []byte, fleet Fleet, held []uint32, own any, ownErr error) (parts []part, missing []Unanswered, err error) {
	mine, err := partOf(fleet.Self, own, ownErr)
	if err != nil {
		return nil, nil, err
	}
	mine.held = held
	parts, missing, err = sortOut(append([]part{mine}, s.askOthers(r, body, fleet)...), fleet)
	if len(parts) > 0 {
		return parts, missing, nil
	}
	for _, m := range missing {
		err = errors.Join(err, fmt.Errorf("replica %s: %s", m.Replica, m.Error))
	}
	return nil, nil, err
}

func limitOf(r *http.Request) int {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		return defaultLimit
	}
	return limit
}

// errNotBegun is why nothing was done of what all shards have to answer for: it may work soon.
var errNotBegun = errors.New("nothing was begun")

// replayElsewhere counts what a replay is about in the shards of the other replicas. There must be none that does not answer: the
// replay would be told to be about less than it is. What was quarantined is taken up again by each replica for itself.
func (s *Server) replayElsewhere(r *http.Request, in replayInput, routed bool) (result gateway.ReplayResult, err error) {
	if s.alone(r) {
		return result, nil
	}
	in.DryRun = in.DryRun || !routed
	body, err := json.Marshal(in)
	if err != nil {
		return result, err
	}
	fleet, err := s.options.Sharing.Fleet(r.Context())
	if err != nil {
		return result, fmt.Errorf("%w: which other replicas there are is not known: %w", errNotBegun, err)
	}
	mine := part{replica: fleet.Self, held: s.still(s.options.Sharing.Held()), answer: json.RawMessage("{}")} // which is counted later
	parts, missing, _ := sortOut(append(s.askOthers(r, body, fleet), mine), fleet)
	joint, err := joined(addReplayed)(parts, 0)
	if len(missing) > 0 && err == nil {
		err = fmt.Errorf("%w: shards %v do not answer: %s", errNotBegun, missing[0].Shards, missing[0].Error)
	}
	if err != nil {
		return result, err
	}
	return joint.(gateway.ReplayResult), nil
}

func addReplayed(into *gateway.ReplayResult, next gateway.ReplayResult, _ int) {
	if into.Matched == nil {
		into.Matched = make(map[string]int)
	}
	for sink, n := range next.Matched {
		into.Matched[sink] += n
	}
	into.Routed += next.Routed
}

// ReplicaStatus is what status says of each relay that shares the journal.
type ReplicaStatus struct {
	Name    string          `json:"name"`
	Address string          `json:"admin"` // its admin address
	Shards  []uint32        `json:"shards"`
	Status  json.RawMessage `json:"status,omitempty"` // what it says of itself; none: see unanswered
}

// statusEverywhere is the status of this replica, with the sinks of all and what each says of itself.
func (s *Server) statusEverywhere(r *http.Request, own any) (any, error) {
	if s.alone(r) {
		return own, nil
	}
	fleet, err := s.options.Sharing.Fleet(r.Context())
	if err != nil { // whoever looks at the status wants to know this, and what there is
		return with(own, members{"unanswered": []Unanswered{{Shards: []uint32{}, Error: err.Error()}}})
	}
	parts, missing, err := s.collect(r, nil, fleet, s.still(s.options.Sharing.Held()), own, nil)
	if err != nil {
		return nil, err
	}
	all, err := joined((*owed).add)(parts, 0)
	if err != nil {
		return nil, err
	}
	replicas := make([]ReplicaStatus, len(fleet.Replicas))
	for i, o := range fleet.Replicas {
		replicas[i] = ReplicaStatus{Name: o.Name, Address: o.Address, Shards: append([]uint32{}, o.Shards...)}
		if at := slices.IndexFunc(parts, func(p part) bool { return p.replica == o.Name }); at >= 0 {
			replicas[i].Status = parts[at].answer
		}
	}
	sum := all.(owed)
	others := members{"sinks": sum.Sinks, "unjudged": sum.Unjudged, "replicas": replicas}
	if sum.Unsure != "" {
		others["unjudged_error"] = sum.Unsure
	}
	if len(missing) > 0 {
		others["unanswered"] = missing
	}
	return with(own, others)
}

// partOf makes of an answer what another replica would have sent.
func partOf(replica string, answer any, err error) (part, error) {
	p := part{replica: replica, err: err}
	if err != nil || answer == nil {
		return p, nil
	}
	p.answer, err = json.Marshal(answer)
	return p, err
}

// askOthers asks the other replicas, all at once.
func (s *Server) askOthers(r *http.Request, body []byte, fleet Fleet) []part {
	others := slices.DeleteFunc(slices.Clone(fleet.Replicas), func(o Replica) bool { return o.Name == fleet.Self })
	parts := make([]part, len(others))
	var asking sync.WaitGroup
	for i, o := range others {
		asking.Go(func() {
			parts[i] = s.askOne(r, body, fleet.Self, o)
			parts[i].replica = o.Name
		})
	}
	asking.Wait()
	return parts
}

const (
	// readPatience is how long a replica may take to look something up; one that was stopped or cut off says nothing.
	readPatience = 10 * time.Second

	// changePatience is for what it does, which can be about all that a sink is owed.
	changePatience = 60 * time.Second

	maxAnswer = 256 << 20 // 1000 events with bodies of 64 KiB, in JSON
)

// errNotThere is a replica's answer that it knows nothing of what was asked for, as a failure of the same kind here.
var errNotThere = fmt.Errorf("%w at another replica", gateway.ErrNotFound)

func (s *Server) askOne(r *http.Request, body []byte, self string, to Replica) part {
	patience := changePatience
	if r.Method == http.MethodGet {
		patience = readPatience
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://"+to.Address+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return part{err: err}
	}
	req.Header.Set(asAReplica, self)
	for _, name := range []string{"Authorization", "Content-Type", commandEnds} {
		req.Header[name] = r.Header[name]
	}
	resp, err := s.others.Do(req)
	if err != nil {
		return part{err: err}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	p := part{held: shardsOf(resp.Header.Get(heldShards))}
	by := resp.Header.Get(asAReplica)
	switch {
	case err != nil:
		return part{err: err}
	case by != "" && by != to.Name: // an earlier version does not say
		return part{err: fmt.Errorf("at %s, as it is called from here, replica %s answers: it needs admin.advertise, with an address that the others reach", to.Address, by)}
	case resp.StatusCode == http.StatusNoContent:
		return p
	case resp.StatusCode == http.StatusOK:
		p.answer = answer
		return p
	}
	var said struct{ Error, Reason string }
	_ = json.Unmarshal(answer, &said)
	if resp.StatusCode == http.StatusNotFound {
		p.err = errNotThere
		return p
	}
	return part{err: fmt.Errorf("%s: %s", resp.Status, said.Error+said.Reason)}
}

func shardsOf(header string) (shards []uint32) {
	for text := range strings.SplitSeq(header, ",") {
		if n, err := strconv.ParseUint(text, 10, 32); err == nil {
			shards = append(shards, uint32(n))
		}
	}
	return shards
}

// answersFor returns what says, when an operation was done, which shards the answer to another replica is about: those that this one
// had all the time.
func (s *Server) answersFor(w http.ResponseWriter, r *http.Request) (say func()) {
	if s.options.Sharing == nil || r.Header.Get(asAReplica) == "" {
		return func() {}
	}
	held := s.options.Sharing.Held()
	return func() { s.sayHeld(w, held) }
}

func (s *Server) sayHeld(w http.ResponseWriter, held []*journal.Shard) {
	var texts []string
	for _, n := range s.still(held) {
		texts = append(texts, strconv.FormatUint(uint64(n), 10))
	}
	w.Header().Set(heldShards, strings.Join(texts, ","))
	w.Header().Set(asAReplica, s.options.Sharing.Name())
}

// sortOut keeps what was answered. Who knows nothing of what was asked for has answered, too.
func sortOut(all []part, fleet Fleet) (answered []part, missing []Unanswered, notFound error) {
	held := make(map[uint32]bool)
	given := make(map[string][]uint32)
	for _, o := range fleet.Replicas {
		given[o.Name] = o.Shards
		for _, shard := range o.Shards {
			held[shard] = true
		}
	}
	for _, p := range all {
		silent := slices.DeleteFunc(slices.Clone(given[p.replica]), func(shard uint32) bool { return slices.Contains(p.held, shard) })
		why := "is taking them over"
		switch {
		case p.err == nil:
			answered = append(answered, p)
		case errors.Is(p.err, gateway.ErrNotFound), errors.Is(p.err, gateway.ErrNoSink):
			notFound = cmp.Or(notFound, p.err)
		default:
			why = p.err.Error()
		}
		if len(silent) > 0 {
			missing = append(missing, Unanswered{p.replica, silent, why})
		}
	}
	var nobody []uint32
	for shard := range uint32(fleet.Shards) {
		if !held[shard] {
			nobody = append(nobody, shard)
		}
	}
	if len(nobody) > 0 {
		missing = append(missing, Unanswered{Shards: nobody, Error: "no replica has these shards at the moment"})
	}
	return answered, missing, notFound
}

// members are those of a JSON object.
type members map[string]any

// with adds members to an answer, or puts them in the place of what it has.
func with(answer any, more members) (any, error) {
	if answer == nil {
		return more, nil
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	all := make(map[string]json.RawMessage)
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	for name, own := range all {
		if _, replaced := more[name]; !replaced {
			more[name] = own
		}
	}
	return more, nil
}

// joined puts answers of one type together: add takes the next one, and how long a list may be.
func joined[T any](add func(into *T, next T, limit int)) joint {
	return func(parts []part, limit int) (any, error) {
		var all T
		for _, p := range parts {
			var next T
			if err := json.Unmarshal(p.answer, &next); err != nil {
				return nil, fmt.Errorf("replica %s does not answer as one of this version: %w", p.replica, err)
			}
			add(&all, next, limit)
		}
		return all, nil
	}
}

func nothing([]part, int) (any, error) { return nil, nil }

func first(parts []part, _ int) (any, error) { return parts[0].answer, nil }

// counts are numbers by what was done, such as {"skipped": 3}.
type counts map[string]uint64

func (c *counts) add(next counts, _ int) {
	if *c == nil {
		*c = make(counts)
	}
	for what, n := range next {
		(*c)[what] += n
	}
}

type sinkList struct {
	Sinks []gateway.SinkStatus `json:"sinks"`
}

func (l *sinkList) add(next sinkList, _ int) { l.Sinks = joinSinks(l.Sinks, next.Sinks) }

// owed is what a status says of a replica's shards.
type owed struct {
	sinkList
	Unjudged uint64 `json:"unjudged"`
	Unsure   string `json:"unjudged_error"` // of one that is not sure
}

func (o *owed) add(next owed, limit int) {
	o.sinkList.add(next.sinkList, limit)
	o.Unjudged, o.Unsure = o.Unjudged+next.Unjudged, cmp.Or(o.Unsure, next.Unsure)
}

// joinSinks adds the accounts of each sink. Its state is the worst of all.
func joinSinks(all, next []gateway.SinkStatus) []gateway.SinkStatus {
	for _, n := range next {
		at, found := slices.BinarySearchFunc(all, n.Name, func(s gateway.SinkStatus, name string) int { return cmp.Compare(s.Name, name) })
		if !found {
			all = slices.Insert(all, at, n)
			continue
		}
		s := &all[at]
		s.Owed, s.Delivered, s.Dead = s.Owed+n.Owed, s.Delivered+n.Delivered, s.Dead+n.Dead
		s.Skipped, s.Dropped, s.Pending = s.Skipped+n.Skipped, s.Dropped+n.Dropped, s.Pending+n.Pending
		s.PendingBytes, s.DeadLetters = s.PendingBytes+n.PendingBytes, s.DeadLetters+n.DeadLetters
		if s.Oldest.IsZero() || !n.Oldest.IsZero() && n.Oldest.Before(s.Oldest) {
			s.Oldest = n.Oldest
		}
		if deliver.Worse(n.State, s.State) {
			s.State, s.Trouble = n.State, n.Trouble
		}
		if s.Paused == "" {
			s.Paused, s.PausedUntil = n.Paused, n.PausedUntil
		}
		s.Configured, s.Owner = s.Configured || n.Configured, cmp.Or(s.Owner, n.Owner)
		s.Errors = deliver.JoinErrors(s.Errors, n.Errors)
	}
	return all
}

// joinPages puts two lists in the order of pages, and says where the whole goes on if there is more than fits.
func joinPages[T interface{ Page() gateway.Page }](all, next []T, limit int, more bool) (list []T, cursorNext string) {
	all = append(orEmpty(all), next...)
	slices.SortFunc(all, func(a, b T) int {
		p, q := a.Page(), b.Page()
		return cmp.Or(cmp.Compare(p.Sink, q.Sink), p.After.Compare(q.After))
	})
	if len(all) > limit {
		all, more = all[:limit], true
	}
	if !more || len(all) == 0 {
		return all, ""
	}
	last := all[len(all)-1].Page()
	return all, cursor(&last)
}

type pendingList struct {
	Pending []gateway.Delivery `json:"pending"`
	Next    string             `json:"next,omitempty"`
}

func (l *pendingList) add(next pendingList, limit int) {
	l.Pending, l.Next = joinPages(l.Pending, next.Pending, limit, l.Next != "" || next.Next != "")
}

type letterList struct {
	DeadLetters []gateway.DeadLetter `json:"dead_letters"`
	Next        string               `json:"next,omitempty"`
}

func (l *letterList) add(next letterList, limit int) {
	l.DeadLetters, l.Next = joinPages(l.DeadLetters, next.DeadLetters, limit, l.Next != "" || next.Next != "")
}

type groupList struct {
	Groups []gateway.LetterGroup `json:"groups"`
}

func (l *groupList) add(next groupList, _ int) {
	l.Groups = gateway.JoinGroups(orEmpty(l.Groups), next.Groups)
}

type replayList struct {
	Replays []gateway.ReplayStatus `json:"replays"`
}

func (l *replayList) add(next replayList, _ int) {
	l.Replays = orEmpty(l.Replays)
	for _, n := range next.Replays {
		at, found := slices.BinarySearchFunc(l.Replays, n.ID, func(r gateway.ReplayStatus, id uint32) int { return cmp.Compare(r.ID, id) })
		if !found {
			l.Replays = slices.Insert(l.Replays, at, n)
			continue
		}
		r := &l.Replays[at]
		r.Matched, r.Delivered, r.Failed = r.Matched+n.Matched, r.Delivered+n.Delivered, r.Failed+n.Failed
		r.Skipped, r.Pending, r.Finished = r.Skipped+n.Skipped, r.Pending+n.Pending, r.Finished && n.Finished
		r.Position = farthest(r.Position, n.Position)
	}
}

// farthest is how far replicas are together: each is where it is in its own shards.
func farthest(a, b journal.Cut) journal.Cut {
	shards := make(map[uint32]journal.Position)
	for _, p := range slices.Concat(a, b) {
		if q, known := shards[p.Shard]; !known || p.Compare(q) > 0 {
			shards[p.Shard] = p
		}
	}
	return slices.SortedFunc(maps.Values(shards), journal.Position.Compare)
}

type lifeList struct {
	Events []gateway.Life `json:"events"`
	More   bool           `json:"more,omitempty"` // there are others
}

func (l *lifeList) add(next lifeList, limit int) {
	l.Events, l.More = append(orEmpty(l.Events), next.Events...), l.More || next.More
	slices.SortStableFunc(l.Events, func(a, b gateway.Life) int { return a.ReceivedAt.Compare(b.ReceivedAt) })
	if len(l.Events) > limit {
		l.Events, l.More = l.Events[:limit], true
	}
}
