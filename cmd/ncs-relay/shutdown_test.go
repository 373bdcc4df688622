package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/porttest"
)

// shutdownRelay is the real program with one HTTP sink.
func shutdownRelay(t *testing.T, sink http.Handler, shutdown string) *diskRelay {
	t.Helper()
	service := porttest.Free()
	listenAt(t, service, sink)
	return &diskRelay{relayUnderTest: newRelay(t, `
listen: "%LISTEN%"
admin: {listen: "%ADMIN%"}
data_dir: %DIR%/data
journal: {min_free: 1MiB}
shutdown: `+shutdown+`
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`]}
sinks:
  - name: service
    http: {url: "http://`+service+`/", timeout: 5m}
routes: [{to: [service]}]
`)}
}

func (r *relayUnderTest) address() string {
	return strings.TrimSuffix(strings.TrimPrefix(r.url, "http://"), "/ncs")
}

func (r *diskRelay) signal() {
	r.t.Helper()
	require.NoError(r.t, r.child.cmd.Process.Signal(syscall.SIGTERM))
}

// callInFlight sends a call but for its end. finish sends that and gives the answer.
func (r *diskRelay) callInFlight(body []byte) (finish func() int) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	_, err = fmt.Fprintf(c, "POST /ncs HTTP/1.1\r\nHost: relay\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
		ncs.HeaderV2, ncs.SignV2(serveSecret, body), len(body), body[:len(body)/2])
	require.NoError(r.t, err)
	return func() int {
		_, err := c.Write(body[len(body)/2:])
		require.NoError(r.t, err)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(r.t, err)
		defer resp.Body.Close()
		return resp.StatusCode
	}
}

func TestShutdownKeepsWhatItAnswers(t *testing.T) {
	t.Parallel()
	far := &receiver{}
	r := shutdownRelay(t, far, "{delay: 1s, timeout: 30s}")
	r.start()

	// Callers under load, who come on connections of their own and keep what was acknowledged.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var mu sync.Mutex
	var faults []string
	var load sync.WaitGroup
	for worker := range 4 {
		load.Go(func() {
			for i := 0; ; i++ {
				body := recording(fmt.Sprint("worker", worker), i, 1)
				a, err := r.callBy(client, body)
				mu.Lock()
				switch {
				case err == nil && a.code == 200:
					r.acknowledged = append(r.acknowledged, string(body))
				case errors.Is(err, syscall.ECONNREFUSED):
					mu.Unlock()
					return // nobody listens any more: the end of the load
				case errors.Is(err, syscall.ECONNRESET): // it waited to be accepted when the port was closed
				default:
					faults = append(faults, fmt.Sprint(a, err))
				}
				mu.Unlock()
			}
		})
	}
	r.eventually(func() bool { return len(far.got()) > 50 }, "no load")
	finish := r.callInFlight(recording("slow", 1, 1))

	r.signal()
	r.eventually(func() bool { return r.probe("/readyz") == 503 }, "still ready")
	require.Equal(t, 200, r.probe("/livez"))
	require.Equal(t, "accepted", r.post(recording("late", 1, 1)), "it stores while those who balance the load find out")
	load.Wait() // the port is closed
	require.Equal(t, 200, finish(), "a call that was under way is answered")
	<-r.child.out
	require.NoError(t, r.child.err, "log: %s", r.child.log)
	require.Empty(t, faults)

	r.acknowledged = append(r.acknowledged, string(recording("slow", 1, 1)), string(recording("late", 1, 1)))
	r.start()
	r.isOnDisk()
	r.eventually(func() bool {
		got := make(map[string]bool)
		for _, body := range far.got() {
			got[body] = true
		}
		for _, body := range r.acknowledged {
			if !got[body] {
				return false
			}
		}
		return true
	}, "acknowledged and not delivered")
	r.terminate()
}

// A sink that does not answer and a caller that does not end its call hold the end up no longer than shutdown.timeout,
// and they are no fault.
func TestShutdownEndsInTime(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	far := &receiver{}
	var once sync.Once
	hung := make(chan struct{})
	r := shutdownRelay(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		once.Do(func() { close(hung) })
		<-release
		req.Body = io.NopCloser(bytes.NewReader(body))
		far.ServeHTTP(w, req)
	}), "{delay: 0s, timeout: 2s}")
	r.start()
	require.Equal(t, "accepted", r.post(recording("s", 1, 1)))
	<-hung
	r.callInFlight(recording("s", 2, 1))
	r.signal()
	select {
	case <-r.child.out:
	case <-time.After(time.Minute): // the sink's time-out is 5 minutes
		require.Fail(t, "it waits for the sink")
	}
	require.NoError(t, r.child.err, "log: %s", r.child.log)

	close(release)
	before := len(far.got())
	r.start()
	r.eventually(func() bool { return len(far.got()) > before }, "what was cut off is not sent again")
	r.terminate()
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	far := &receiver{}
	r := shutdownRelay(t, far, "{delay: 10m, timeout: 20m}")
	r.start()
	require.Equal(t, "accepted", r.post(recording("s", 1, 1)))
	r.signal()
	r.eventually(func() bool { return r.probe("/readyz") == 503 }, "still ready")
	require.Equal(t, "accepted", r.post(recording("s", 2, 1)))
	r.signal()
	select {
	case <-r.child.out:
	case <-time.After(time.Minute):
		require.Fail(t, "the second signal does not end it")
	}
	var exit *exec.ExitError
	require.ErrorAs(t, r.child.err, &exit)
	require.Equal(t, syscall.SIGTERM, exit.Sys().(syscall.WaitStatus).Signal())

	r.acknowledged = []string{string(recording("s", 1, 1)), string(recording("s", 2, 1))}
	r.start()
	r.isOnDisk()
	r.eventually(func() bool { return len(far.got()) >= 2 }, "not delivered")
	r.signal()
	r.eventually(func() bool { return r.probe("/readyz") == 503 }, "still ready")
	r.child.kill()
}
