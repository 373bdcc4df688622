package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
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
	server *http.Server
	addr   string

	mu       sync.Mutex
	got      []arrival
	forged   int
	failures int
}

func startService() (*service, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &service{addr: l.Addr().String()}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	go s.server.Serve(l)
	return s, nil
}

func (s *service) Addr() string { return s.addr }
func (s *service) Close()       { s.server.Close() }

func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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

// relayProcess is the real binary, built and started.
type relayProcess struct {
	URL, Admin string
	binary     string
	cmd        *exec.Cmd
	ended      chan error
	log        string
}

func startRelay(ctx context.Context, dir, kafka, receiver string) (*relayProcess, error) {
	r := &relayProcess{binary: filepath.Join(dir, "ncs-relay"), log: filepath.Join(dir, "relay.log"), ended: make(chan error, 1)}
	build := exec.CommandContext(ctx, "go", "build", "-o", r.binary, "ncs-relay/cmd/ncs-relay")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build ncs-relay: %w\n%s", err, out)
	}
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	r.URL, r.Admin = "http://"+listen+"/ncs/recording", "http://"+admin
	config := filepath.Join(dir, "relay.yaml")
	if err := os.WriteFile(config, relayConfig, 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(r.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r.cmd = exec.Command(r.binary, "serve", "-c", config)
	r.cmd.Env = append(os.Environ(), "NCS_SECRET="+secret, "DEMO_LISTEN="+listen, "DEMO_ADMIN="+admin, "DEMO_DATA="+dir,
		"DEMO_KAFKA="+kafka, "DEMO_RECEIVER="+receiver)
	r.cmd.Stderr = log
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { r.ended <- r.cmd.Wait() }()
	if err := r.waitReady(ctx); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// freeAddress is a loopback address that is free at the moment.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (r *relayProcess) waitReady(ctx context.Context) error {
	return r.poll(ctx, 20*time.Second, "the relay does not get ready", func() bool {
		resp, err := http.Get(r.Admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// WaitSettled waits until the relay owes nothing to any sink.
func (r *relayProcess) WaitSettled(ctx context.Context, most time.Duration) error {
	return r.poll(ctx, most, "deliveries are still pending", func() bool {
		resp, err := http.Get(r.Admin + "/api/v1/status")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var status struct {
			Sinks []struct{ Pending int }
		}
		if json.NewDecoder(resp.Body).Decode(&status) != nil {
			return false
		}
		for _, s := range status.Sinks {
			if s.Pending > 0 {
				return false
			}
		}
		return len(status.Sinks) > 0
	})
}

func (r *relayProcess) poll(ctx context.Context, most time.Duration, otherwise string, done func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(most)
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			return fmt.Errorf("%s after %s", otherwise, most)
		case <-ctx.Done():
			return ctx.Err()
		case err := <-r.ended:
			r.ended <- err
			log, _ := os.ReadFile(r.log)
			return fmt.Errorf("the relay ended: %v\n%s", err, log)
		}
	}
	return nil
}

// Stop ends the relay as an orchestrator would.
func (r *relayProcess) Stop() error {
	select {
	case err := <-r.ended:
		return err
	default:
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return <-r.ended
}
