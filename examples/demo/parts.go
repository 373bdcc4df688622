package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"ncs-relay/examples/internal/process"
)

// broker is a Kafka-compatible broker in this process.
type broker struct{ cluster *kfake.Cluster }

var topics = []string{
	"ncs.cloud_recording.recorder", "ncs.cloud_recording.service", "ncs.cloud_recording.uploader",
	"ncs.cloud_recording.web_recorder", "ncs.cloud_recording.extension", "ncs.cloud_recording.transcoder",
	"ncs.cloud_recording.download",
}

func startBroker() (*broker, error) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, topics...))
	if err != nil {
		return nil, err
	}
	return &broker{c}, nil
}

func (b *broker) Addr() string { return b.cluster.ListenAddrs()[0] }
func (b *broker) Close()       { b.cluster.Close() }

// records reads everything in all topics.
func (b *broker) records(ctx context.Context) ([]*kgo.Record, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	want := int64(0)
	for _, topic := range topics {
		for p := range int32(4) {
			want += b.cluster.PartitionInfo(topic, p).HighWatermark
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var all []*kgo.Record
	for int64(len(all)) < want {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read Kafka: %w", err)
		}
		all = append(all, fetches.Records()...)
	}
	return all, nil
}

// service is a receiver as it would be written for Agora: it checks Agora's signature over the raw body, and knows
// nothing of the relay. One call in thirty it fails, as services do.
type service struct {
	*process.Server

	mu       sync.Mutex
	got      []arrival
	forged   int
	failures int
}

func startService() (s *service, err error) {
	s = new(service)
	s.Server, err = process.Serve(s.receive)
	return s, err
}

func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

func (s *service) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(r.Header.Get("Agora-Signature-V2"))):
		s.forged++
		w.WriteHeader(http.StatusUnauthorized)
	case rand.IntN(30) == 0:
		s.failures++
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		s.got = append(s.got, arrival{id: r.Header.Get("Ncs-Relay-Event-Id"), body: string(body)})
		io.WriteString(w, "{}")
	}
}

func startRelay(ctx context.Context, dir, kafka, receiver string) (*process.Relay, error) {
	binary, err := process.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	return process.Start(ctx, binary, dir, "relay", relayConfig,
		"NCS_SECRET="+secret, "DEMO_DATA="+dir, "DEMO_KAFKA="+kafka, "DEMO_RECEIVER="+receiver)
}
