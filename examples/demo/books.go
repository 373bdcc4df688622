package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"ncs-relay/relay/simulate"
)

// books are the demo's own accounts of what the relay said it had accepted.
type books struct {
	mu     sync.Mutex
	events map[string]entry // by event id
	seen   map[string]int   // events accepted per recording
}

type entry struct {
	recording string
	number    int // of its recording, in the order of acceptance
	event     string
	body      string
}

func newBooks() *books { return &books{events: map[string]entry{}, seen: map[string]int{}} }

func (b *books) accepted(s simulate.Sent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n struct {
		Payload struct {
			Details struct{ MsgName string }
		}
	}
	_ = json.Unmarshal(s.Body, &n) // the simulator's own bodies
	b.seen[s.Entity]++
	b.events[s.EventID] = entry{recording: s.Entity, number: b.seen[s.Entity], event: n.Payload.Details.MsgName, body: string(s.Body)}
}

// arrival is one event at one sink.
type arrival struct {
	id, body string
	order    string // arrivals with the same order have one: a topic; "" = the sink has one
}

// arrivals are what the sinks got, by name.
type arrivals map[string][]arrival

func collect(ctx context.Context, b *broker, s *service, archive string) (arrivals, error) {
	records, err := b.records(ctx)
	if err != nil {
		return nil, err
	}
	all := arrivals{}
	for _, r := range records {
		a := arrival{body: string(r.Value), order: r.Topic}
		for _, h := range r.Headers {
			if h.Key == "ncs-event-id" {
				a.id = string(h.Value)
			}
		}
		all["events"] = append(all["events"], a)
	}
	s.mu.Lock()
	all["billing"] = slices.Clone(s.got)
	s.mu.Unlock()

	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var l struct{ ID, Body string }
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		all["archive"] = append(all["archive"], arrival{id: l.ID, body: l.Body})
	}
	return all, lines.Err()
}

// wants reports whether the rules of relay.yaml send an event to a sink.
func wants(sink, event string) bool {
	return sink != "billing" || slices.Contains([]string{"uploaded", "backuped", "session_exit", "recorder_started", "recorder_slice_start"}, event)
}

// check holds what arrived against what was accepted: each event once at each of its sinks, in order per recording,
// byte for byte.
func (b *books) check(all arrivals) (faults []string) {
	for _, sink := range []string{"events", "billing", "archive"} {
		times := map[string]int{}
		last := map[[2]string]int{}
		for _, a := range all[sink] {
			e, ok := b.events[a.id]
			switch {
			case !ok:
				faults = append(faults, fmt.Sprintf("%s got event %q, which was not accepted", sink, a.id))
				continue
			case a.body != e.body:
				faults = append(faults, fmt.Sprintf("%s got other bytes of event %s than were accepted", sink, a.id))
			}
			times[a.id]++
			key := [2]string{e.recording, a.order}
			if e.number < last[key] {
				faults = append(faults, fmt.Sprintf("%s got event %d of recording %s after event %d", sink, e.number, e.recording, last[key]))
			}
			last[key] = e.number
		}
		for id, e := range b.events {
			want := 0
			if wants(sink, e.event) {
				want = 1
			}
			if times[id] != want {
				faults = append(faults, fmt.Sprintf("%s got event %s (%s) %d times instead of %d", sink, id, e.event, times[id], want))
			}
		}
	}
	return faults
}

func tallyFaults(t simulate.Tally, b *books) (faults []string) {
	for what, n := range t.Wrong {
		faults = append(faults, fmt.Sprintf("%d times %s", n, what))
	}
	if t.Unacknowledged > 0 {
		faults = append(faults, fmt.Sprintf("%d events were never acknowledged", t.Unacknowledged))
	}
	if len(b.events) != t.Events || t.Outcomes[simulate.Accepted] != t.Events {
		faults = append(faults, fmt.Sprintf("%d events sent, %d accepted", t.Events, len(b.events)))
	}
	if t.Statuses[401] != t.Forged {
		faults = append(faults, fmt.Sprintf("%d forged calls, %d refused", t.Forged, t.Statuses[401]))
	}
	if t.Copies == 0 || t.Resends == 0 || t.Forged == 0 {
		faults = append(faults, "the run was too small to show copies, resends and bad signatures")
	}
	return faults
}

// showProgress shows what happens while it happens: on a terminal one line that is written over.
func showProgress(out *os.File, s *service, archive string) (progress func(simulate.Progress), done func()) {
	terminal := term.IsTerminal(int(out.Fd()))
	last := time.Time{}
	show := func(p simulate.Progress) {
		if !terminal && p.Done < p.Total && time.Since(last) < 2*time.Second {
			return
		}
		last = time.Now()
		size := int64(0)
		if info, err := os.Stat(archive); err == nil {
			size = info.Size()
		}
		line := fmt.Sprintf("recordings %d/%d  calls %d  accepted %d  duplicates %d  rejected %d  billing got %d  archive %d KiB",
			p.Done, p.Total, p.Tally.Calls, p.Tally.Outcomes[simulate.Accepted], p.Tally.Outcomes[simulate.Duplicate],
			p.Tally.Statuses[401], s.count(), size>>10)
		if terminal {
			fmt.Fprintf(out, "\r\x1b[K%s", line)
		} else {
			fmt.Fprintln(out, line)
		}
	}
	return show, func() { fmt.Fprintln(out) }
}

func printResult(out io.Writer, t simulate.Tally, all arrivals, s *service) error {
	var buf bytes.Buffer
	w := tabwriter.NewWriter(&buf, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(name string, n int, what string) { fmt.Fprintf(w, "%s\t%d\t  %s\n", name, n, what) }
	row("sent", t.Calls, fmt.Sprintf("%d events, %d copies, %d resends, %d bad signatures", t.First, t.Copies, t.Resends, t.Forged))
	row("accepted", t.Outcomes[simulate.Accepted], "")
	row("duplicates", t.Outcomes[simulate.Duplicate], "")
	row("rejected", t.Statuses[401], "")
	row("delivered to events", len(all["events"]), "Kafka, a topic for each category")
	row("delivered to billing", len(all["billing"]), fmt.Sprintf("HTTP; answered 503 %d times, found %d bad signatures", s.failures, s.forged))
	row("delivered to archive", len(all["archive"]), "file")
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&buf, "\n%d recordings in %.1f s, %.0f calls/s, answers within %v (median) and %v (99 %%)\n\n",
		t.Entities, t.Elapsed.Seconds(), float64(t.Calls)/t.Elapsed.Seconds(), t.Latency.P50.Round(10*time.Microsecond), t.Latency.P99.Round(10*time.Microsecond))
	_, err := out.Write(buf.Bytes())
	return err
}
