package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/ncs"
)

var (
	startUpEvents = flag.Int("startup.events", 2000, "undelivered events and known keys with which the start is measured")
	startUpWatch  = flag.Duration("startup.watch", 0, "how long the relay goes on after the measured start, with its sinks down, before its memory is measured again")
)

// TestStartUp measures the time from the start of the process to its first 200, with a backlog and known keys, after
// kill -9:
//
//	go test ./cmd/ncs-relay -run TestStartUp -startup.events 1000000 -startup.watch 30s -v
//
// and the memory it takes. It asserts neither: machines differ. With a million of each (about 1 GB) one second is promised.
func TestStartUp(t *testing.T) {
	r := newRelay(t, oneSource+`sinks:
  - name: service
    http: {url: "http://127.0.0.1:1/hooks"}
  - name: kafka
    kafka: {brokers: ["127.0.0.1:1"], topic: "ncs.{product}.{category}"}
routes:
  - to: [service, kafka]
`)
	fillJournal(t, filepath.Join(r.dir, "data"), *startUpEvents)
	r.start() // delivers, in vain
	r.kill()

	body := recording("first", 1, 1)
	began := time.Now()
	cmd := exec.Command("ncs-relay", "serve", "-c", r.config)
	cmd.Stderr = r.log
	require.NoError(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	for {
		req, err := http.NewRequest("POST", r.url, bytes.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Agora-Signature-V2", ncs.SignV2(serveSecret, body))
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
			break
		}
		require.Less(t, time.Since(began), time.Minute, "never answered: %s", r.log)
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("first 200 after %v with %d undelivered events and known keys", time.Since(began).Round(time.Millisecond), *startUpEvents)
	t.Logf("memory then: %s", peakMemory(cmd.Process.Pid))
	r.eventually(func() bool { return r.tellsKnownKeys(*startUpEvents) }, "keys are never all loaded")
	time.Sleep(*startUpWatch)
	t.Logf("memory %v later: %s", *startUpWatch, peakMemory(cmd.Process.Pid))
}

func (r *relayUnderTest) tellsKnownKeys(n int) bool {
	status, err := r.status()
	return err == nil && status.DedupKeys >= n
}

// peakMemory is the most that a process has had in memory.
func peakMemory(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "not known"
	}
	_, peak, _ := strings.Cut(string(b), "VmHWM:")
	peak, _, _ = strings.Cut(peak, "\n")
	return "at most " + strings.TrimSpace(peak)
}

// fillJournal appends n events that two sinks are owed.
func fillJournal(t *testing.T, dir string, n int) {
	t.Helper()
	j := disktest.Open(t, dir, diskjournal.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, j.Run(ctx)) })
	sinks := []string{"service", "kafka"}
	for _, name := range sinks {
		_, err := j.Sink(name)
		require.NoError(t, err)
	}
	body := recording("a-recording-of-many", 7, 1596555306283)
	body = append(body[:len(body)-1], bytes.Repeat([]byte(" "), 600)...)
	body = append(body, '}')
	var stored sync.WaitGroup
	for i := range n {
		rec := &journal.Record{Time: time.Now(), Source: "recording", ProductID: 3, EventType: 31, Entity: string(rune('a' + i%26)), Sinks: sinks,
			ContentType: "application/json", SignatureV2: ncs.SignV2("x", nil), Body: body}
		hash := sha256.Sum256(binary.AppendUvarint(nil, uint64(i))) // keys and ids are hashes
		rec.ID, rec.Key = [16]byte(hash[:]), [16]byte(hash[16:])
		stored.Add(1)
		require.NoError(t, j.Append(ctx, rec, func(_ journal.Position, err error) {
			if err != nil {
				t.Error(err)
			}
			stored.Done()
		}))
	}
	stored.Wait()
	cancel()
	wg.Wait()
	require.NoError(t, j.Close())
}
