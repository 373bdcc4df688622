package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/relaytest"
)

// BenchmarkAccept measures whole calls over loopback: the relay, which answers after fsync, beside a bare net/http
// server that only verifies the signature. Compare the two of one run; the client's share is in both.
func BenchmarkAccept(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		verifier, err := ncs.NewVerifier([]string{testSecret}, false)
		if err != nil {
			b.Fatal(err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if _, ok := verifier.Verify(body, nil, r.Header.Values(ncs.HeaderV2)); !ok || err != nil {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			io.WriteString(w, "{}")
		}))
		defer server.Close()
		load(b, server.URL)
	})
	b.Run("relay", func(b *testing.B) {
		f := start(b, fixture{}, nil, sinkSpec("all", relaytest.NewFarSide()))
		load(b, f.url)
	})
}

// load posts new events from 64 connections.
func load(b *testing.B, url string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer client.CloseIdleConnections()
	var n atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := int(n.Add(1))
			body := body(fmt.Sprint("recording-", i%500), i)
			req, err := http.NewRequest("POST", url, bytes.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			req.Header.Set(ncs.HeaderV2, ncs.SignV2(testSecret, body))
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// BenchmarkIsolation measures what one dead sink of ten does to the answers and to the other nine: the two runs should
// not differ. The dead sink is one whose calls hang until they time out. On a machine that does other things, compare the
// CPU: the rate is that of a disk that all share.
func BenchmarkIsolation(b *testing.B) {
	for _, dead := range []bool{false, true} {
		b.Run(fmt.Sprintf("dead=%v", dead), func(b *testing.B) {
			var specs []deliver.SinkSpec
			var living []*relaytest.FarSide
			for i := range 10 {
				s := relaytest.NewFarSide()
				s.Batch = 50
				spec := sinkSpec(fmt.Sprint("sink", i), s)
				if i == 0 && dead {
					spec.Breaks = true
					s.Slow = func(relay.Attempt) time.Duration { return 100 * time.Millisecond }
					s.Fail = func(relay.Attempt) error { return errors.New("timeout") }
				} else {
					living = append(living, s)
				}
				specs = append(specs, spec)
			}
			f := start(b, fixture{}, nil, specs...)
			cpu := relaytest.CPU(b)
			load(b, f.url)
			began := time.Now()
			for _, s := range living {
				s.WaitFor(b, b.N)
			}
			b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-until-all-delivered")
			b.ReportMetric(float64((relaytest.CPU(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// BenchmarkOwed measures what very many deliveries cost that a sink does not take: memory and state for each, and the time
// to skip them all. Either they wait behind one event that failed, or each has an entity of its own and has failed.
func BenchmarkOwed(b *testing.B) {
	const owed = 150_000 // fewer than queueBytes allow
	for _, entities := range []int{1, owed} {
		b.Run(fmt.Sprintf("entities=%d", entities), func(b *testing.B) {
			for b.Loop() {
				sink := &deadService{}
				spec := sinkSpec("all", sink)
				spec.Retry.Initial, spec.Retry.MaxInterval = 10*time.Hour, 10*time.Hour
				f := start(b, fixture{}, nil, spec)
				before := heapSize()
				for i := range owed {
					key, entity := relaytest.Identity(i, 1), fmt.Sprint("recording-", i%entities)
					rec := &journal.Record{ID: key.ID, Key: key.Key, Time: time.Now(), Source: "main", ProductID: 3, Entity: entity,
						Sinks: []string{"all"}, Body: body(entity, i)}
					if err := f.journal.Append(b.Context(), rec, func(journal.Position, error) {}); err != nil {
						b.Fatal(err)
					}
				}
				for sink.tries.Load() < int64(entities) || len(f.journal.Pending("all")) < owed {
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(2 * time.Second) // for the checkpoint
				b.ReportMetric(float64(heapSize()-before)/owed, "heap-B/owed")
				if state, err := os.Stat(filepath.Join(f.dir, "state.db")); err != nil {
					b.Fatal(err)
				} else {
					b.ReportMetric(float64(state.Size())/owed, "state-B/owed")
				}
				began := time.Now()
				if n, err := f.gateway.SkipPending(b.Context(), relay.Filter{Sink: "all"}, nil); err != nil || n != owed {
					b.Fatal(n, err)
				}
				b.ReportMetric(time.Since(began).Seconds(), "s-to-skip")
				f.end()
			}
		})
	}
}

// deadService refuses every connection.
type deadService struct{ tries atomic.Int64 }

func (s *deadService) Lane(ev *relay.Event) relay.Lane { return relay.Lane{Key: ev.Entity} }
func (s *deadService) MaxBatch() (int, int)            { return 1, 0 }
func (s *deadService) Close() error                    { return nil }
func (s *deadService) Send(context.Context, relay.Lane, []relay.Attempt) (int, error) {
	s.tries.Add(1)
	return 0, errors.New(`Post "https://billing.internal/hooks/agora": dial tcp 10.0.0.1:443: connect: connection refused`)
}

func heapSize() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
