package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"ncs-relay/relay/ncs"
)

// Check is one thing that is asked of a receiver of Agora's notifications.
type Check struct {
	Name string `json:"name"`
	Must bool   `json:"must"` // a receiver that fails it loses events, or takes forged ones
	OK   bool   `json:"ok"`
	Why  string `json:"why,omitempty"`  // it is not, with the event and the answer
	Hint string `json:"hint,omitempty"` // what to do
}

// Conformance is what a receiver was found to be.
type Conformance struct {
	OK     bool    `json:"ok"` // every must holds
	Checks []Check `json:"checks"`
}

// answered is one call of a conformance run.
type answered struct {
	event  string
	status int
	body   []byte
	took   time.Duration
	err    error
}

func (a *answered) good() bool { return a.status == http.StatusOK }

func (a *answered) String() string {
	if a.err != nil {
		return fmt.Sprintf("%s: no answer after %s: %v", a.event, a.took.Round(time.Millisecond), a.err)
	}
	return fmt.Sprintf("%s: answered %d %.160q after %s", a.event, a.status, a.body, a.took.Round(time.Millisecond))
}

// tester makes the calls of a conformance run.
type tester struct {
	Config
	checks []Check
}

// Conform plays what a receiver of Agora's notifications has to live with, and judges its answers: by what Agora demands (must), and by
// what makes trouble sooner or later. URL, Secret and Timeout of the Config count, and Products, whose events are sent; none = all.
func Conform(ctx context.Context, c Config) (Conformance, error) {
	c.setDefaults()
	if len(c.Products) == 0 {
		for _, p := range ncs.Builtin().ProductNames() {
			if len(samplesOf(p, c.Start).Events) > 0 {
				c.Products = append(c.Products, p)
			}
		}
	}
	if err := c.check(); err != nil {
		return Conformance{}, err
	}
	if c.Send == nil {
		client := newClient(c.Concurrency)
		defer client.CloseIdleConnections()
		c.Send = poster(client, c.URL)
	}
	t := &tester{Config: c}
	t.everyEvent(ctx)
	t.forged(ctx)
	t.copies(ctx)
	t.disorder(ctx)
	t.atOnce(ctx)
	t.news(ctx)
	bad := slices.ContainsFunc(t.checks, func(c Check) bool { return c.Must && !c.OK })
	return Conformance{OK: !bad, Checks: t.checks}, ctx.Err()
}

func (t *tester) post(ctx context.Context, body []byte, header http.Header) *answered {
	a := &answered{}
	if n, err := ncs.Builtin().Parse(body); err == nil {
		a.event = n.Info.Product + "." + n.Info.Event
	}
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	began := time.Now()
	a.status, a.body, a.err = t.Send(ctx, body, header)
	a.took = time.Since(began)
	return a
}

func (t *tester) good(ctx context.Context, body []byte) *answered {
	return t.post(ctx, body, signed(t.Secret, body))
}

// note judges answers: the first that is not right says why.
func (t *tester) note(must bool, name, hint string, answers []*answered, right func(*answered) bool) {
	c := Check{Name: name, Must: must, OK: true}
	for _, a := range answers {
		if !right(a) {
			c.OK, c.Why, c.Hint = false, a.String(), hint
			break
		}
	}
	t.checks = append(t.checks, c)
}

// events are those of all products, freshly made.
func (t *tester) events() (bodies [][]byte) {
	now := time.Now()
	for _, p := range t.Products {
		e := samplesOf(p, now)
		for i := range e.Events {
			bodies = append(bodies, e.Events[i].Body(now.UnixMilli()))
		}
	}
	return bodies
}

func (t *tester) everyEvent(ctx context.Context) {
	var all []*answered
	for _, body := range t.events() {
		all = append(all, t.good(ctx, body))
	}
	t.note(true, fmt.Sprintf("answers 200 to every documented event (%d)", len(all)), hintFor("", firstBad(all)), all, (*answered).good)
	t.note(true, "answers within 10 s", "answer first and work later: Agora gives up a call after 10 s and sends it again", all,
		func(a *answered) bool { return a.err == nil && a.took < 10*time.Second })
	t.note(false, "answers within 2 s", "leave room for a slow day: what is answered after 10 s comes again", all,
		func(a *answered) bool { return a.err == nil && a.took < 2*time.Second })
	t.note(true, "answers JSON", "answer a small object, such as {}, with Content-Type: application/json: Agora's page demands JSON", all,
		func(a *answered) bool { return !a.good() || json.Valid(a.body) })
}

func firstBad(all []*answered) int {
	for _, a := range all {
		if !a.good() {
			return a.status
		}
	}
	return 0
}

func (t *tester) forged(ctx context.Context) {
	body := t.events()[0]
	changed := bytes.Replace(body, []byte(`"notifyMs"`), []byte(`"notifyMz"`), 1)
	for _, f := range []struct {
		name   string
		body   []byte
		header http.Header
	}{
		{"refuses what another secret signed", body, signed(t.Secret+"x", body)},
		{"refuses a body that was changed after signing", changed, signed(t.Secret, body)},
		{"refuses what is not signed", body, http.Header{"Content-Type": {"application/json"}}},
	} {
		a := t.post(ctx, f.body, f.header)
		t.note(true, f.name, hintFor(WrongForgedTaken, a.status), []*answered{a}, func(a *answered) bool { return a.status >= 300 })
	}
}

func (t *tester) copies(ctx context.Context) {
	e := samplesOf(t.Products[0], time.Now()).Events[0]
	now := time.Now().UnixMilli()
	all := []*answered{t.good(ctx, e.Body(now)), t.good(ctx, e.Body(now)), t.good(ctx, e.Body(now+1000))}
	t.note(true, "answers 200 to a copy, the same bytes or with a new notifyMs", "a copy is no error: answer 200 to what you have already, or it comes three times more",
		all, (*answered).good)
}

// disorder sends a whole recording backwards.
func (t *tester) disorder(ctx context.Context) {
	if !slices.Contains(t.Products, "cloud_recording") {
		return
	}
	e := recording(rand.New(rand.NewPCG(uint64(t.Seed), 1)), 0, t.Start, 0)
	var all []*answered
	for i := len(e.Events) - 1; i >= 0; i-- {
		all = append(all, t.good(ctx, e.Events[i].Body(time.Now().UnixMilli())))
	}
	t.note(true, "survives disorder: a recording whose events come backwards", "Agora promises no order: keep what comes early, and sort by sequence", all, (*answered).good)
}

func (t *tester) atOnce(ctx context.Context) {
	e := samplesOf(t.Products[0], time.Now()).Events[0]
	all := make([]*answered, 16)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = t.good(ctx, e.Body(time.Now().UnixMilli()+int64(i))) })
	}
	wg.Wait()
	t.note(true, "survives copies that come at the same time (16)", "let one win, by a unique key on the event, and answer 200 to all", all, (*answered).good)
}

// news sends what Agora may add at any time.
func (t *tester) news(ctx context.Context) {
	body := t.events()[0]
	grown := bytes.Replace(body, []byte(`"payload":{`), []byte(`"payload":{"newField":{"a":[1]},`), 1)
	t.note(false, "takes fields that it does not know", "ignore unknown members: Agora adds some at any time", []*answered{t.good(ctx, grown)}, (*answered).good)
	known, _ := ncs.Builtin().Parse(body) // which made it
	unknown := fmt.Appendf(nil, `{"noticeId":"%016x","productId":%d,"eventType":9999,"notifyMs":%d,"payload":{"sid":"s","cname":"c"}}`,
		rand.Uint64(), known.Info.ProductID, time.Now().UnixMilli())
	t.note(false, "takes event types that it does not know", "answer 200 and ignore them, or they come three times more", []*answered{t.good(ctx, unknown)}, (*answered).good)
}
