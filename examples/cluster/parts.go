package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"ncs-relay/examples/internal/process"
)

// startReceiver starts a service as it would be written for Agora: it checks Agora's signature over the raw body.
func startReceiver(books *books) (*process.Server, error) {
	return process.Serve(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		if err != nil || !hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(r.Header.Get("Agora-Signature-V2"))) {
			books.forged.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		books.arrived(r.Header.Get("Ncs-Relay-Event-Id"))
		io.WriteString(w, "{}")
	})
}

// balancerPatience is how long the balancer waits for an answer, which a relay gives within 8 s.
const balancerPatience = 8 * time.Second

// startBalancer passes each call to one of the relays that say they are ready, in turn. It tries no second one: what a relay that
// died has left unanswered is for the sender to send again. It looks who is ready until ctx ends.
func startBalancer(ctx context.Context, relays []*process.Relay, books *books) (*process.Server, error) {
	var ready [replicas]atomic.Bool
	var turn atomic.Uint64
	client := &http.Client{Timeout: balancerPatience, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	s, err := process.Serve(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			return
		}
		for range relays {
			i := int(turn.Add(1) % uint64(len(relays)))
			if !ready[i].Load() {
				continue
			}
			out, _ := http.NewRequestWithContext(r.Context(), r.Method, "http://"+relays[i].Listen+r.URL.Path, bytes.NewReader(body))
			out.Header = r.Header.Clone()
			began := time.Now()
			resp, err := client.Do(out)
			if err != nil {
				break
			}
			defer resp.Body.Close()
			books.relayTook(time.Since(began))
			w.WriteHeader(resp.StatusCode)
			io.Copy(w, resp.Body)
			return
		}
		w.WriteHeader(http.StatusBadGateway)
	})
	if err != nil {
		return nil, err
	}
	for i, r := range relays {
		go func() {
			for ctx.Err() == nil {
				ready[i].Store(r.Ready())
				sleep(ctx, 100*time.Millisecond)
			}
		}()
	}
	return s, nil
}

// owners are the shards of each replica, by name.
type owners []struct {
	Name   string
	Shards []uint32
}

func (o owners) of(name string) []uint32 {
	for _, r := range o {
		if r.Name == name {
			return r.Shards
		}
	}
	return nil
}

func (o owners) String() string {
	var parts []string
	for _, r := range o {
		parts = append(parts, fmt.Sprintf("%s %v", r.Name, r.Shards))
	}
	return strings.Join(parts, ", ")
}

// status is what a relay says of all.
type status struct {
	Replicas   owners
	Unanswered []struct{ Error string }
}

// waitShared waits until so many replicas have all shards.
func waitShared(ctx context.Context, r *process.Relay, count int) (owners, error) {
	var s status
	err := r.Poll(ctx, 60*time.Second, "the shards are not shared out", func() bool {
		s = status{}
		return r.Status(&s) == nil && len(s.Unanswered) == 0 && len(s.Replicas) >= count
	})
	return s.Replicas, err
}
