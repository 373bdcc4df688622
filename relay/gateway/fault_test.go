package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/relaytest"
)

// The test that two well-known pipelines fail: the write fails, the resend must not be told "duplicate".
func TestFullDiskIsToldAtOnceAndTheResendIsStored(t *testing.T) {
	t.Parallel()
	disk := disktest.NewCrashFS(1)
	sink := relaytest.NewFarSide()
	f := start(t, fixture{fs: disk}, nil, sinkSpec("all", sink))
	require.Equal(t, "accepted", f.post(body("s", 1)).Status)

	disk.Fail(disktest.FailFrom(1, syscall.ENOSPC))
	for range 3 {
		r := f.post(body("s", 2))
		require.Equal(t, 503, r.Code)
		require.Contains(t, r.Error, "no space")
	}
	require.Equal(t, "duplicate", f.post(body("s", 1)).Status, "what is stored is known, disk or no disk")

	disk.Fail(nil)
	var last relaytest.Reply
	require.Eventually(t, func() bool {
		last = f.post(body("s", 2))
		return last.Code == 200
	}, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, "accepted", last.Status)
	relaytest.RequireInOrder(t, sink.WaitFor(t, 2), 2)
}

func TestAPassingFaultIsWaitedFor(t *testing.T) {
	t.Parallel()
	disk := disktest.NewCrashFS(2)
	sink := relaytest.NewFarSide()
	f := start(t, fixture{fs: disk}, nil, sinkSpec("all", sink))
	require.Equal(t, "accepted", f.post(body("s", 1)).Status)
	n := 0
	var mu sync.Mutex
	disk.Fail(func(_ int, op disktest.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op == disktest.OpSync {
			if n++; n == 1 {
				return syscall.EIO
			}
		}
		return nil
	})
	require.Equal(t, "accepted", f.post(body("s", 2)).Status, "one attempt of NCS is worth a moment's wait")
	relaytest.RequireInOrder(t, sink.WaitFor(t, 2), 2)
}

func TestCopiesShareTheFateOfAFailedWrite(t *testing.T) {
	t.Parallel()
	disk := disktest.NewCrashFS(3)
	sink := relaytest.NewFarSide()
	f := start(t, fixture{fs: disk}, nil, sinkSpec("all", sink))
	disk.Fail(disktest.FailFrom(1, syscall.ENOSPC))
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if r := f.post(resend("s", 1, int64(i))); r.Code != 503 {
				t.Errorf("answered %d %s for an event that is not on disk", r.Code, r.Status)
			}
		})
	}
	wg.Wait()
	disk.Fail(nil)
	require.Eventually(t, func() bool { return f.post(body("s", 1)).Status == "accepted" }, 20*time.Second, 10*time.Millisecond)
	require.Len(t, sink.WaitFor(t, 1), 1)
}

func TestAccountsBalance(t *testing.T) {
	t.Parallel()
	disk := disktest.NewCrashFS(4)
	sink := relaytest.NewFarSide()
	n := 0
	sink.Set(func(relay.Attempt) error {
		switch n++; {
		case n%5 == 0:
			return relay.Permanent(fmt.Errorf("refused"))
		case n%3 == 0:
			return fmt.Errorf("later")
		}
		return nil
	})
	f := start(t, fixture{fs: disk}, nil, sinkSpec("all", sink))
	for i := range 40 {
		switch i % 8 {
		case 0:
			f.post([]byte("[]" + fmt.Sprint(i)))
		case 1:
			relaytest.Request(t, "POST", f.url, body("s", i))
		case 2:
			relaytest.Request(t, "GET", f.url, nil)
		case 3:
			disk.Fail(disktest.FailFrom(1, syscall.ENOSPC))
			require.Equal(t, 503, f.post(body("s", i)).Code)
			disk.Fail(nil)
			require.Eventually(t, func() bool { return f.post(body("s", i)).Code == 200 }, 20*time.Second, time.Millisecond)
		case 4:
			f.post([]byte(`{"eventType":101,"noticeId":"1:2:105","payload":{"channelName":"test_webhook","ts":1},"productId":1}`))
		default:
			f.post(body("s", i/2*2)) // half of them copies
		}
	}
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 20*time.Second, 5*time.Millisecond)
	status := f.gateway.Status()
	require.Len(t, status.Sources, 1)
	a := status.Sources[0]
	require.Zero(t, a.InFlight)
	require.Equal(t, a.Received, a.Rejected+a.Unavailable+a.Tests+a.Duplicates+a.Quarantined+a.Accepted)
	require.EqualValues(t, 10, a.Rejected)
	require.EqualValues(t, 5, a.Tests)
	require.EqualValues(t, 5, a.Quarantined)
	require.GreaterOrEqual(t, a.Unavailable, uint64(5))
	require.Positive(t, a.Duplicates)
	s := f.sink("all")
	require.Equal(t, s.Owed, s.Delivered+s.Dead+s.Skipped+s.Dropped+s.Pending)
	require.Equal(t, a.Accepted, s.Owed)
	f.end()

	g := start(t, fixture{dir: f.dir, fs: disk}, nil, sinkSpec("all", sink))
	require.Equal(t, status.Sources, g.gateway.Status().Sources, "kept over a restart")
	s.Errors = nil // of the last minutes of a process
	require.Equal(t, s, g.sink("all"))
}

func TestLeaderThatHangsUpDoesNotReleaseTheClaim(t *testing.T) {
	t.Parallel()
	disk := disktest.NewCrashFS(5)
	sink := relaytest.NewFarSide()
	f := start(t, fixture{fs: disk}, nil, sinkSpec("all", sink))
	require.Equal(t, "accepted", f.post(body("s", 0)).Status)

	release, syncing := make(chan struct{}), make(chan struct{}, 1)
	disk.Fail(func(_ int, op disktest.Op) error {
		if op == disktest.OpSync {
			select {
			case syncing <- struct{}{}:
			default:
			}
			<-release
		}
		return nil
	})
	ctx, hangUp := context.WithCancel(t.Context())
	leader := make(chan error, 1)
	go func() {
		b := body("s", 1)
		req, err := http.NewRequestWithContext(ctx, "POST", f.url, bytes.NewReader(b))
		if err == nil {
			req.Header.Set(ncs.HeaderV2, ncs.SignV2(testSecret, b))
			_, err = http.DefaultClient.Do(req)
		}
		leader <- err
	}()
	<-syncing
	hangUp()
	require.ErrorIs(t, <-leader, context.Canceled)

	copied := make(chan relaytest.Reply, 1)
	go func() { copied <- f.post(resend("s", 1, 7)) }()
	select {
	case r := <-copied:
		t.Fatalf("answered %d %s while the write it depends on was not done", r.Code, r.Status)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	require.Equal(t, "duplicate", (<-copied).Status)
	disk.Fail(nil)
	require.Equal(t, "accepted", f.post(body("s", 2)).Status)
	require.Len(t, sink.WaitFor(t, 3), 3)
}
