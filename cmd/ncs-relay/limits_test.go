package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Many slow and idle clients hold every connection that the relay allows. Honest callers and operators are served all
// the same.
func TestCrowdOfSlowClients(t *testing.T) {
	t.Parallel()
	r := newRelay(t, `
listen: "%LISTEN%"
admin: {listen: "%ADMIN%"}
data_dir: %DIR%/data
journal: {min_free: 1MiB}
limits: {connections: 50, in_flight_bytes: 1MiB}
shutdown: {delay: 0s, timeout: 4s}
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`]}
`)
	r.start()
	address := r.address()
	header := "POST /ncs HTTP/1.1\r\nHost: relay\r\nContent-Length: 1000000\r\n"
	crowd := []string{
		"",              // a port scanner, a health check
		"POST /nc",      // slow in the header
		header + "\r\n", // slow in the body
		header + "\r\n" + strings.Repeat("x", 500_000), // with a share of the bytes
		"GET /x HTTP/1.1\r\nHost: relay\r\n\r\n",       // idle after an answer
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, send := range crowd {
		for range 40 {
			wg.Go(func() { beSlow(address, send, stop) })
		}
	}
	defer wg.Wait()
	defer close(stop)
	r.eventually(func() bool { return strings.Contains(r.metrics(), "ncs_relay_connections 50") }, "the crowd is not there")

	honest := map[string]*http.Client{
		"kept connection": {Transport: &http.Transport{}},
		"new connection":  {Transport: &http.Transport{DisableKeepAlives: true}},
	}
	again := 0
	for i := range 100 {
		for name, client := range honest {
			attempts := r.notify(client, recording(name, i, 1))
			require.LessOrEqual(t, attempts, 4, "NCS gives up")
			again += attempts - 1
		}
		require.Equal(t, 200, r.probe("/readyz"))
	}
	t.Logf("200 notifications, %d calls again", again)
	require.NotContains(t, r.metrics(), "ncs_relay_connections_cut_total 0")
	r.terminate()
}

// notify makes a call as NCS does, again when it is not answered 200, and tells how many that took; more than 4 is none
// of them.
func (r *relayUnderTest) notify(client *http.Client, body []byte) (attempts int) {
	for attempts = 1; attempts <= 4; attempts++ {
		if a, err := r.callBy(client, body); err == nil && a.code == 200 {
			break
		}
	}
	return attempts
}

// beSlow keeps a connection with what was sent on it, and comes back when it is cut off, but not in a flood.
func beSlow(address, send string, stop <-chan struct{}) {
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				io.WriteString(c, send)
				io.Copy(io.Discard, c)
			}()
			select {
			case <-gone:
			case <-stop:
			}
			c.Close()
			<-gone
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-stop:
			return
		}
	}
}

func (r *relayUnderTest) metrics() string {
	resp, err := http.Get(r.admin + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// A socket that the service manager keeps open over restarts: calls made in between wait, none is refused.
func TestRestartsWithAPassedSocketRefuseNoCall(t *testing.T) {
	t.Parallel()
	r := newRelay(t, oneSource)
	l, err := net.Listen("tcp", r.address())
	require.NoError(t, err)
	socket, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	require.NoError(t, l.Close()) // the file keeps the socket open
	defer socket.Close()

	start := func() *exec.Cmd {
		cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec ncs-relay serve -c "$0"`, r.config)
		cmd.ExtraFiles = []*os.File{socket}
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}
	stop := make(chan struct{})
	var answeredCalls, next atomic.Int64
	var faults sync.Map
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			// A kept connection ends with the process that it leads to, and a call on it may meet that end; new ones do not.
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := r.callBy(client, recording("sid", int(next.Add(1)), 1))
				if err != nil || a.status != "accepted" {
					faults.Store(fmt.Sprint(a, err), true)
				}
				answeredCalls.Add(1)
			}
		})
	}
	for range 5 {
		cmd := start()
		before := answeredCalls.Load()
		r.eventually(func() bool { return answeredCalls.Load() > before+100 && r.probe("/readyz") == 200 }, "no calls answered")
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
	}
	cmd := start() // answers those that wait
	close(stop)
	wg.Wait()
	faults.Range(func(fault, _ any) bool { t.Error("a call was not taken: ", fault); return true })
	t.Logf("%d calls over 5 restarts", answeredCalls.Load())
	r.eventually(func() bool { return r.probe("/readyz") == 200 }, "never ready")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
}
