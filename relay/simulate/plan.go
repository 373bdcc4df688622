// Package simulate plays Agora's notification service: whole recordings and channel sessions, signed, with the copies,
// resends, disorder, failovers and forged calls that a receiver has to live with, and with NCS's rules for retries.
//
// It promises that what is sent follows from Config alone (but for the ids of Products), that within an entity one event follows the
// other only after that was answered, so that the order of first arrival is known, and that the Tally adds up. It takes
// no view of the receiver except what its answers say; what became of the events behind it is for the caller to
// compare with what OnAccepted and OnAnswer told.
package simulate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Config says what is played, how fast, and how badly. Rates are shares from 0 to 1.
type Config struct {
	URL    string   // of the receiver; unused with Send
	Send   SendFunc // in place of HTTP; called concurrently
	Secret string   // signs the calls; must not be empty

	Recordings int      // recordings of Cloud Recording to play
	Channels   int      // channel sessions of RTC to play
	Products   []string // products whose documented events are played, all of one as an entity

	Rate        float64 // calls a second, all kinds together; 0 = as fast as answers come
	Concurrency int     // entities played at the same time; 0 = 16

	CopyRate         float64 // share of events that come twice at the same time
	Redundant        bool    // every event comes twice, as with "redundant message notification"
	ResendRate       float64 // share of events that come again some events later
	ShuffleRate      float64 // share of events that come up to 4 events late
	BadSignatureRate float64 // share of events for which a forged call comes first; it must be answered 401
	FailoverRate     float64 // share of recordings in which another recorder takes over and counts from 0 again

	Seed  int64
	Start time.Time // of the first recording; zero = now, which makes each run's recordings new ones

	Timeout       time.Duration // for an answer; 0 = 10 s, as NCS
	RetryInterval time.Duration // before the second retry, doubled before the third (NCS's are unpublished); 0 = 2 s

	// OnAccepted hears of every answer "accepted", with the bytes that were accepted: concurrently for several
	// entities, in order within one. The event may have reached a sink before.
	OnAccepted func(Sent)
	// OnAnswer hears of the end of every rightly signed call, also of those without an answer, after which it is open
	// which of the bytes sent for an event were stored. Called concurrently.
	OnAnswer func(Sent)
}

// SendFunc makes one call and returns the answer's status and body.
type SendFunc func(ctx context.Context, body []byte, header http.Header) (status int, answer []byte, err error)

// check reports the first mistake.
func (c *Config) check() error {
	if c.Send == nil {
		u, err := url.Parse(c.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("%q is not an http or https URL", c.URL)
		}
	}
	if c.Secret == "" {
		return errors.New("no secret to sign with")
	}
	if c.Recordings < 0 || c.Channels < 0 || c.Concurrency < 0 || c.Rate < 0 || c.Timeout < 0 || c.RetryInterval < 0 {
		return errors.New("negative numbers make no sense here")
	}
	if err := checkProducts(c.Products); err != nil {
		return err
	}
	for _, rate := range []float64{c.CopyRate, c.ResendRate, c.ShuffleRate, c.BadSignatureRate, c.FailoverRate} {
		if !(rate >= 0 && rate <= 1) {
			return fmt.Errorf("rate %v is not between 0 and 1", rate)
		}
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.Concurrency == 0 {
		c.Concurrency = 16
	}
	if c.Start.IsZero() {
		c.Start = time.Now()
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.RetryInterval == 0 {
		c.RetryInterval = 2 * time.Second
	}
}

// Entity is one recording or channel session: its events, and the steps in which they are sent.
type Entity struct {
	Name   string  // recording id or channel name: what ncs.Notification calls Entity
	Events []Event // in the order in which they occur
	Steps  []Step  // in the order of sending, one after the other
}

// Step is one thing sent: an event with its copies, an event again, or a forged call.
type Step struct {
	Event  int // index into Entity.Events
	Kind   Kind
	Copies int // further notifications of the event at the same time
}

// Kind of a step.
type Kind int

// Kinds of steps.
const (
	First       Kind = iota // the event for the first time
	Resend                  // the event again, without need
	BadSecret               // forged: signed with another secret
	BadBody                 // forged: changed after signing
	BadUnsigned             // forged: without signatures
)

// forged reports whether the step's call must be refused.
func (k Kind) forged() bool { return k >= BadSecret }

// shuffleWindow is how many events late a shuffled one comes at most.
const shuffleWindow = 4

// entities is how many are played.
func (c *Config) entities() int { return c.Recordings + c.Channels + len(c.Products) }

// entity generates the i-th entity, independently of the others, so that workers need no common generator.
func (c *Config) entity(i int) Entity {
	seed := uint64(c.Seed) ^ uint64(c.Start.UnixMilli())<<16
	rng := rand.New(rand.NewPCG(seed, uint64(2*i)))
	at := c.Start.Add(time.Duration(i) * 250 * time.Millisecond)
	var e Entity
	switch {
	case i < c.Recordings:
		e = recording(rng, i, at, c.FailoverRate)
	case i >= c.Recordings+c.Channels:
		e = samplesOf(c.Products[i-c.Recordings-c.Channels], at)
	default:
		e = channelSession(rng, i, at)
	}
	e.Steps = c.steps(rand.New(rand.NewPCG(seed, uint64(2*i+1))), len(e.Events))
	return e
}

// steps says in which order and how often the events of an entity are sent. It draws the same numbers whatever the
// rates are, so that changing one rate leaves alone what the others hit.
func (c *Config) steps(rng *rand.Rand, events int) []Step {
	type planned struct {
		Step
		at float64 // place in the order
	}
	var all []planned
	add := func(s Step, at float64) { all = append(all, planned{s, at}) }
	for i := range events {
		shuffle, late := rng.Float64(), 1+rng.IntN(shuffleWindow)
		copied, bad, badKind := rng.Float64(), rng.Float64(), rng.IntN(3)
		resend, after := rng.Float64(), 1+rng.IntN(6)

		at := float64(i)
		if shuffle < c.ShuffleRate {
			at += float64(late) + 0.1 // behind the event whose place it takes
		}
		if bad < c.BadSignatureRate {
			add(Step{Event: i, Kind: BadSecret + Kind(badKind)}, at)
		}
		first := Step{Event: i, Kind: First}
		if c.Redundant || copied < c.CopyRate {
			first.Copies = 1
		}
		add(first, at)
		if resend < c.ResendRate {
			add(Step{Event: i, Kind: Resend}, at+float64(after)+0.2)
		}
	}
	slices.SortStableFunc(all, func(a, b planned) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	steps := make([]Step, len(all))
	for i := range all {
		steps[i] = all[i].Step
	}
	return steps
}
