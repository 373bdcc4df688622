package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"ncs-relay/relay/ncs"
)

// maxRetries after the first attempt. Source: "Notifications" of Agora's documentation.
const maxRetries = 3

// Sent is one rightly signed call and its answer.
type Sent struct {
	Entity   string // recording id or channel name
	Index    int    // of the event in its Entity
	Body     []byte // the exact bytes; not to be changed
	Status   int    // 0 = no answer
	Outcome  string // Accepted ... Other; "" unless answered 200
	EventID  string // from the answer
	NotifyMs int64
}

// Progress is how far a run is.
type Progress struct {
	Done, Total int // entities
	Tally       Tally
}

// Run plays the plan and returns when it is done or ctx ends, with its error then. progress, unless nil, is called every
// 100 ms and at the end, never concurrently.
func Run(ctx context.Context, c Config, progress func(Progress)) (Tally, error) {
	if err := c.check(); err != nil {
		return Tally{}, err
	}
	c.setDefaults()
	p := &player{Config: c, tally: newTally()}
	if c.Rate > 0 {
		p.pacer.interval = time.Duration(float64(time.Second) / c.Rate)
	}
	if p.Send == nil {
		client := newClient(c.Concurrency)
		defer client.CloseIdleConnections()
		p.Send = poster(client, c.URL)
	}
	start := time.Now()
	stop := p.report(progress)
	p.playAll(ctx)
	result := p.tally.snapshot()
	result.Elapsed = time.Since(start)
	stop(result)
	return result, ctx.Err()
}

// player sends the calls of a run.
type player struct {
	Config
	tally *tally
	pacer pacer
}

func (p *player) playAll(ctx context.Context) {
	var wg sync.WaitGroup
	var next atomic.Int64
	total := p.entities()
	for range min(p.Concurrency, total) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= total {
					return
				}
				p.play(ctx, p.entity(i))
			}
		})
	}
	wg.Wait()
}

// report calls progress until the returned function is called with the final tally.
func (p *player) report(progress func(Progress)) func(Tally) {
	if progress == nil {
		return func(Tally) {}
	}
	total := p.entities()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				t := p.tally.snapshot()
				progress(Progress{Done: t.Entities, Total: total, Tally: t})
			case <-done:
				return
			}
		}
	}()
	return func(t Tally) {
		close(done)
		<-ended
		progress(Progress{Done: t.Entities, Total: total, Tally: t})
	}
}

// entityState is what is known of an entity's events while it is played.
type entityState struct {
	Entity
	mu     sync.Mutex // guards events
	events []eventState
}

type eventState struct {
	notifyMs     int64 // of the last sending
	id           string
	accepted     bool
	acknowledged bool
}

func (p *player) play(ctx context.Context, e Entity) {
	s := &entityState{Entity: e, events: make([]eventState, len(e.Events))}
	for _, step := range e.Steps {
		if ctx.Err() != nil {
			return
		}
		if step.Kind.forged() {
			p.forge(ctx, s, step)
			continue
		}
		p.notifyAll(ctx, s, step)
	}
	if ctx.Err() != nil {
		return
	}
	p.tally.add(func(t *Tally) {
		t.Entities++
		for i := range s.events {
			if !s.events[i].acknowledged {
				t.Unacknowledged++
			}
		}
	})
}

// notifyAll sends an event and its copies at the same time, and waits for all.
func (p *player) notifyAll(ctx context.Context, s *entityState, step Step) {
	var wg sync.WaitGroup
	for range step.Copies {
		wg.Go(func() { p.notify(ctx, s, step.Event, func(t *Tally) { t.Copies++ }) })
	}
	if step.Kind == First {
		p.notify(ctx, s, step.Event, func(t *Tally) { t.First++ })
	} else {
		p.notify(ctx, s, step.Event, func(t *Tally) { t.Resends++ })
	}
	wg.Wait()
	if step.Kind == First && ctx.Err() == nil {
		p.tally.add(func(t *Tally) { t.Events++ })
	}
}

// notify sends one notification by the rules of NCS: again at once when it was not answered 200, then after growing
// intervals, four times at most. count counts the first attempt.
func (p *player) notify(ctx context.Context, s *entityState, event int, count func(*Tally)) {
	for attempt := range 1 + maxRetries {
		if attempt > 1 && !sleep(ctx, p.RetryInterval<<(attempt-2)) {
			return
		}
		if !p.pacer.wait(ctx) {
			return
		}
		p.tally.add(count)
		sent, answer := p.call(ctx, s, event)
		if sent.Status == http.StatusOK {
			return
		}
		if attempt == maxRetries {
			p.failed(WrongGivenUp, s.Name, sent.Body, sent.Status, answer)
		}
		count = func(t *Tally) { t.Retries++ }
	}
	p.tally.add(func(t *Tally) { t.GivenUp++ })
}

// call makes one rightly signed call, and returns what was sent and answered.
func (p *player) call(ctx context.Context, s *entityState, event int) (sent Sent, answer []byte) {
	notifyMs := s.nextNotifyMs(event)
	body := s.Events[event].Body(notifyMs)
	status, answer := p.send(ctx, body, signed(p.Secret, body))
	sent = Sent{Entity: s.Name, Index: event, Body: body, Status: status, NotifyMs: notifyMs}
	if status == http.StatusOK {
		sent.Outcome, sent.EventID = parseAnswer(answer)
	}
	p.judge(s, sent, answer)
	if p.OnAnswer != nil {
		p.OnAnswer(sent)
	}
	if p.OnAccepted != nil && sent.Outcome == Accepted {
		p.OnAccepted(sent)
	}
	return sent, answer
}

// nextNotifyMs is now, but never the same twice for an event: NCS renews it with each sending.
func (s *entityState) nextNotifyMs(event int) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &s.events[event]
	e.notifyMs = max(time.Now().UnixMilli(), e.notifyMs+1)
	return e.notifyMs
}

// judge books an answer and finds what is wrong with it.
func (p *player) judge(s *entityState, sent Sent, answer []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &s.events[sent.Index]
	var wrong []string
	switch {
	case sent.Status >= 400 && sent.Status < 500:
		wrong = append(wrong, WrongGoodRefused)
	case sent.Outcome == Test || sent.Outcome == Quarantined:
		wrong = append(wrong, WrongNotTaken)
	case sent.Outcome == Accepted && e.accepted:
		wrong = append(wrong, WrongAcceptedTwice)
	}
	if sent.EventID != "" {
		if e.id != "" && e.id != sent.EventID {
			wrong = append(wrong, WrongTwoIDs)
		}
		e.id = sent.EventID
	}
	e.accepted = e.accepted || sent.Outcome == Accepted
	e.acknowledged = e.acknowledged || sent.Status == http.StatusOK
	for _, w := range wrong {
		p.failed(w, s.Name, sent.Body, sent.Status, answer)
	}
	p.tally.add(func(t *Tally) {
		if sent.Outcome != "" {
			t.Outcomes[sent.Outcome]++
		}
		for _, w := range wrong {
			t.Wrong[w]++
		}
	})
}

// forge makes one call that must be refused.
func (p *player) forge(ctx context.Context, s *entityState, step Step) {
	if !p.pacer.wait(ctx) {
		return
	}
	body := s.Events[step.Event].Body(s.nextNotifyMs(step.Event))
	header := signed(p.Secret, body)
	switch step.Kind {
	case BadSecret:
		header = signed(p.Secret+"x", body)
	case BadBody:
		body[bytes.LastIndexByte(body, ':')+1]++ // another productId; the body stays JSON
	case BadUnsigned:
		header.Del(ncs.HeaderV1)
		header.Del(ncs.HeaderV2)
	}
	p.tally.add(func(t *Tally) { t.Forged++ })
	if status, answer := p.send(ctx, body, header); status >= 200 && status < 300 {
		p.failed(WrongForgedTaken, s.Name, body, status, answer)
		p.tally.add(func(t *Tally) { t.Wrong[WrongForgedTaken]++ })
	}
}

// send makes one call; status 0 means that no answer came.
func (p *player) send(ctx context.Context, body []byte, header http.Header) (status int, answer []byte) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	start := time.Now()
	status, answer, err := p.Send(ctx, body, header)
	if err != nil {
		status, answer = 0, []byte(err.Error())
	}
	p.tally.answered(status, time.Since(start))
	return status, answer
}

func signed(secret string, body []byte) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set(ncs.HeaderV1, ncs.SignV1(secret, body))
	h.Set(ncs.HeaderV2, ncs.SignV2(secret, body))
	return h
}

// parseAnswer reads the relay's answer. Other receivers may answer what they like.
func parseAnswer(answer []byte) (outcome, eventID string) {
	var a struct{ Status, Event string }
	if json.Unmarshal(answer, &a) != nil {
		return Other, ""
	}
	switch a.Status {
	case Accepted, Duplicate, Test, Quarantined:
		return a.Status, a.Event
	}
	return Other, ""
}

// newClient keeps a connection for every call that can be in flight. It follows no redirect: NCS knows only 200.
func newClient(concurrency int) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 2 * concurrency, // each entity may send an event and its copy
			IdleConnTimeout:     90 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func poster(client *http.Client, url string) SendFunc {
	return func(ctx context.Context, body []byte, header http.Header) (int, []byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return 0, nil, err
		}
		req.Header = header
		resp, err := client.Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return resp.StatusCode, answer, err
	}
}

// pacer spreads calls evenly; the zero pacer lets all pass.
type pacer struct {
	interval time.Duration
	mu       sync.Mutex // guards next
	next     time.Time  // when the next call may go
}

// wait waits for the caller's turn; false = ctx ended.
func (p *pacer) wait(ctx context.Context) bool {
	if p.interval == 0 {
		return ctx.Err() == nil
	}
	p.mu.Lock()
	now := time.Now()
	turn := p.next
	if turn.Before(now) {
		turn = now
	}
	p.next = turn.Add(p.interval)
	p.mu.Unlock()
	return sleep(ctx, turn.Sub(now))
}

// sleep waits for d; false = ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
