package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"ncs-relay/relay/ncs"
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
		f := start(b, fixture{}, nil, sinkSpec("all", newFarSide()))
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
// not differ. The dead sink is one whose calls hang until they time out.
func BenchmarkIsolation(b *testing.B) {
	for _, dead := range []bool{false, true} {
		b.Run(fmt.Sprintf("dead=%v", dead), func(b *testing.B) {
			var specs []SinkSpec
			var living []*farSide
			for i := range 10 {
				s := newFarSide()
				s.batch = 50
				spec := sinkSpec(fmt.Sprint("sink", i), s)
				if i == 0 && dead {
					spec.Breaks = true
					s.slow = func(Attempt) time.Duration { return 100 * time.Millisecond }
					s.fail = func(Attempt) error { return errors.New("timeout") }
				} else {
					living = append(living, s)
				}
				specs = append(specs, spec)
			}
			f := start(b, fixture{}, nil, specs...)
			load(b, f.url)
			began := time.Now()
			for _, s := range living {
				s.waitFor(b, b.N)
			}
			b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-until-all-delivered")
		})
	}
}
