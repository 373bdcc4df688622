package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// diskRelay is the real program with its data directory on a volume of its own, and one HTTP sink off it.
type diskRelay struct {
	*relayUnderTest
	child        *crashChild
	volume       string // "" = none of its own
	service      *switchedService
	acknowledged []string // bodies answered "accepted"
	next         int
}

// volumeSize leaves room for some reservations of the journal, 4 MiB each.
const volumeSize = 24 << 20

// newDiskRelay mounts a small file system in memory. journal is the configuration of that name.
func newDiskRelay(t *testing.T, journal string) *diskRelay {
	t.Helper()
	volume := t.TempDir()
	if err := syscall.Mount("tmpfs", volume, "tmpfs", 0, fmt.Sprintf("size=%d", volumeSize)); err != nil {
		t.Skipf("needs the right to mount a file system: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(volume, syscall.MNT_DETACH)) })
	r := diskRelayAt(t, volume+"/data", journal)
	r.volume = volume
	return r
}

// newPlainDiskRelay is one on the disk that tests use anyway.
func newPlainDiskRelay(t *testing.T) *diskRelay { return diskRelayAt(t, "%DIR%/data", "{min_free: 1}") }

func diskRelayAt(t *testing.T, dataDir, journal string) *diskRelay {
	t.Helper()
	r := &diskRelay{service: &switchedService{}}
	service := listenAt(t, "127.0.0.1:0", r.service)
	r.relayUnderTest = newRelay(t, `
listen: "%LISTEN%"
admin: {listen: "%ADMIN%"}
data_dir: `+dataDir+`
journal: `+journal+`
shutdown: {delay: 0s, timeout: 10s}
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`]}
sinks:
  - name: service
    http: {url: "http://`+service+`/hooks"}
    retry: {initial: 20ms, max_interval: 200ms}
routes:
  - to: [service]
`)
	return r
}

// launch starts the program, by way of another one if given.
func (r *diskRelay) launch(by ...string) {
	r.t.Helper()
	r.child = startCrashChild(r.t, r.config, by...)
	child := r.child
	r.t.Cleanup(func() {
		child.end()
		if r.t.Failed() {
			r.t.Logf("log: %s", child.log)
		}
	})
}

func (r *diskRelay) start() {
	r.t.Helper()
	r.launch()
	r.eventually(func() bool { return r.probe("/readyz") == 200 }, "never ready")
}

func (r *diskRelay) kill()      { r.child.kill() }
func (r *diskRelay) terminate() { r.t.Helper(); r.child.terminate() }

// switchedService keeps what it takes, and takes nothing while it is down.
type switchedService struct {
	receiver
	down atomic.Bool
}

func (s *switchedService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.down.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.receiver.ServeHTTP(w, r)
}

// answered is what a call was told.
type answered struct {
	code        int
	status, err string
	took        time.Duration
}

// call posts a signed body.
func (r *relayUnderTest) call(body []byte) (answered, error) {
	return r.callBy(http.DefaultClient, body)
}

func (r *relayUnderTest) callBy(client *http.Client, body []byte) (a answered, err error) {
	mac := hmac.New(sha256.New, []byte(serveSecret))
	mac.Write(body)
	req, err := http.NewRequest("POST", r.url, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Agora-Signature-V2", hex.EncodeToString(mac.Sum(nil)))
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	var text struct{ Status, Error string }
	err = json.NewDecoder(resp.Body).Decode(&text)
	return answered{resp.StatusCode, text.Status, text.Error, time.Since(start)}, err
}

// send posts a new event, of some size so that space runs out soon, and books it when it was accepted. Where nobody
// listens, as before the process has opened its port, the code is 0.
func (r *diskRelay) send() answered {
	r.t.Helper()
	r.next++
	body := bytes.Replace(recording("sid", r.next, 1), []byte(`"status":0`), fmt.Appendf(nil, `"status":0,"fileList":"%s"`, strings.Repeat("x", 64<<10)), 1)
	a, err := r.call(body)
	switch {
	case err == nil && a.code == 200 && a.status == "accepted":
		r.acknowledged = append(r.acknowledged, string(body))
	case err == nil && a.code == 503, errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
	default:
		r.t.Errorf("answer %+v, error %v", a, err)
	}
	return a
}

// accept sends n events that must be accepted.
func (r *diskRelay) accept(n int) {
	r.t.Helper()
	for range n {
		require.Equal(r.t, 200, r.send().code)
	}
}

// sendUntil sends until an event is answered so.
func (r *diskRelay) sendUntil(code int) (a answered) {
	r.t.Helper()
	r.eventually(func() bool { a = r.send(); return a.code == code }, fmt.Sprint("never answered ", code))
	return a
}

// refuses expects 503 without the wait that passing faults get.
func (r *diskRelay) refuses(text string) {
	r.t.Helper()
	a := r.sendUntil(503)
	require.Contains(r.t, a.err, text)
	require.Less(r.t, a.took, 4*time.Second, "a full disk is told at once, not after the 5 s that a passing fault gets")
	require.Equal(r.t, 200, r.probe("/livez"))
}

func (r *relayUnderTest) probe(path string) int {
	resp, err := http.Get(r.admin + path)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// deliversAll expects everything acknowledged so far at the sink; an event that was answered 503 may be there too.
func (r *diskRelay) deliversAll() {
	r.t.Helper()
	r.service.down.Store(false)
	r.eventually(func() bool {
		got := make(map[string]bool)
		for _, body := range r.service.got() {
			got[body] = true
		}
		return !slices.ContainsFunc(r.acknowledged, func(body string) bool { return !got[body] })
	}, "acknowledged and not delivered")
}

// fill takes what is left of a volume but for the given bytes, and gives a function that returns it.
func (r *diskRelay) fill(leave int64) (free func()) {
	r.t.Helper()
	name := filepath.Join(r.volume, "filler")
	f, err := os.Create(name)
	require.NoError(r.t, err)
	defer f.Close()
	chunk := make([]byte, 64<<10)
	for {
		var st syscall.Statfs_t
		require.NoError(r.t, syscall.Statfs(r.volume, &st))
		if int64(st.Bavail)*st.Bsize <= leave {
			break
		}
		if _, err := f.Write(chunk); err != nil {
			require.ErrorIs(r.t, err, syscall.ENOSPC)
			break
		}
	}
	return func() { require.NoError(r.t, os.Remove(name)) }
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		journal string
		leave   int64
	}{
		"to the last byte": {"{min_free: 1}", 0},
		"below min_free":   {"{min_free: 8MiB}", 6 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newDiskRelay(t, c.journal)
			r.service.down.Store(true)
			r.start()
			r.accept(20)

			free := r.fill(c.leave)
			r.refuses("no space")
			r.deliversAll() // the backlog, while the disk is full
			free()
			r.sendUntil(200)
			r.accept(5)
			require.Equal(t, 200, r.probe("/readyz"))

			r.service.down.Store(true)
			r.accept(5)
			free = r.fill(c.leave)
			r.kill()
			r.launch() // on a full disk
			r.eventually(func() bool { return r.probe("/livez") == 200 }, "never alive")
			r.refuses("no space")
			r.deliversAll()
			free()
			r.sendUntil(200)
			r.accept(5)
			r.deliversAll()
			r.kill()
			r.start()
			r.deliversAll()
			r.terminate()
		})
	}
}

// Whoever balances the load sends nothing to a relay that is not ready. So it must find out without a call that there is
// room again.
func TestReadyAgainWithoutTraffic(t *testing.T) {
	t.Parallel()
	r := newDiskRelay(t, "{min_free: 8MiB}")
	r.start()
	r.accept(1)
	free := r.fill(6 << 20)
	r.refuses("no space")
	require.Equal(t, 503, r.probe("/readyz"))
	require.Contains(t, r.child.log.String(), "the journal cannot take events")
	require.Contains(t, r.child.log.String(), "notification answered 503: cannot store: no space")
	free()
	r.eventually(func() bool { return r.probe("/readyz") == 200 }, "not ready although there is room")
	r.accept(1)
	r.terminate()
}

// A file system that finds itself damaged makes itself read-only under its users; here it is told to.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	image, volume := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if out, err := exec.Command("sh", "-ec", `truncate -s 64M "$0"; mkfs.ext4 -q "$0"; mount -o loop "$0" "$1"`, image, volume).CombinedOutput(); err != nil {
		t.Skipf("needs ext4 on a loop device: %v: %s", err, out)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(volume, syscall.MNT_DETACH)) })
	r := diskRelayAt(t, volume+"/data", "{min_free: 1}")
	r.service.down.Store(true)
	r.start()
	r.accept(20)

	require.NoError(t, exec.Command("mount", "-o", "remount,abort", volume).Run())
	r.sendUntil(503)
	r.deliversAll()
	r.kill()
	require.NoError(t, syscall.Unmount(volume, 0))
	require.NoError(t, exec.Command("mount", "-o", "loop", image, volume).Run())
	r.start()
	r.isOnDisk()
	r.accept(5)
	r.deliversAll()
	r.terminate()
}

// A data_dir that is not ours to use, or whose state cannot be believed, ends the start with a reason, and stays as it is.
func TestUnusableDataDir(t *testing.T) {
	t.Parallel()
	state, format := filepath.Join("data", "state.db"), filepath.Join("data", "FORMAT")
	for name, c := range map[string]struct {
		spoil func(dir string) error
		says  []string
	}{
		"foreign": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, format)), os.WriteFile(filepath.Join(dir, "data", "thesis.txt"), nil, 0o600))
		}, []string{"not empty and not a journal"}},
		"newer": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, format), []byte("ncs-relay journal 99\n"), 0o600)
		}, []string{"newer version"}},
		"another kind of FORMAT": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, format), []byte{0xff}, 0o600)
		}, []string{"not a journal"}},
		"state gone":      {func(dir string) error { return os.Remove(filepath.Join(dir, state)) }, []string{"missing or empty", "journal export"}},
		"state emptied":   {func(dir string) error { return os.Truncate(filepath.Join(dir, state), 0) }, []string{"missing or empty", "journal export"}},
		"state cut short": {func(dir string) error { return os.Truncate(filepath.Join(dir, state), 100) }, []string{"damaged", "journal export"}},
		"state garbled": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, state), bytes.Repeat([]byte("garbage "), 8192), 0o600)
		}, []string{"damaged", "journal export"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newPlainDiskRelay(t)
			r.service.down.Store(true)
			r.start()
			r.accept(3)
			r.kill()
			require.NoError(t, c.spoil(r.dir))
			before := tree(t, filepath.Join(r.dir, "data"))
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), "ncs-relay", "serve", "-c", r.config)
			cmd.Stderr = &stderr
			var exit *exec.ExitError
			require.ErrorAs(t, cmd.Run(), &exit)
			require.Equal(t, exitFailed, exit.ExitCode(), stderr.String())
			for _, text := range c.says {
				require.Contains(t, stderr.String(), text)
			}
			require.Equal(t, before, tree(t, filepath.Join(r.dir, "data")))
		})
	}
}

// tree is the content of all files in a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		all[name] = string(b)
		return err
	}))
	return all
}

// What such a disk holds is delivered when it can be written again: the journal must be ours before it is read.
func TestStartOnReadOnlyDisk(t *testing.T) {
	t.Parallel()
	r := newDiskRelay(t, "{min_free: 1}")
	r.service.down.Store(true)
	r.start()
	r.accept(20)
	r.kill()
	require.NoError(t, r.remount(syscall.MS_RDONLY))
	r.launch()
	r.eventually(func() bool { return r.probe("/livez") == 200 }, "never alive")
	r.sendUntil(503)
	require.NoError(t, r.remount(0))
	r.sendUntil(200)
	r.deliversAll()
	r.terminate()
}

func (r *diskRelay) remount(flags uintptr) error {
	return syscall.Mount("tmpfs", r.volume, "tmpfs", syscall.MS_REMOUNT|flags, fmt.Sprintf("size=%d", volumeSize))
}

// Faults are put under the running program by strace: the system call is not made and fails as it would. Where strace
// lets go the disk is well again.
func TestFailingSystemCalls(t *testing.T) {
	t.Parallel()
	needStrace(t)
	for _, c := range []struct {
		name, inject string
		atOnce       bool // full, and not a fault that may pass
	}{
		{"fdatasync fails", "fdatasync:error=EIO", false},
		{"write fails", "pwrite64:error=EIO", false},
		{"write finds no space", "pwrite64:error=ENOSPC", true},
		{"reservation fails", "fallocate:error=EIO", false},
		{"reservation finds no space", "fallocate:error=ENOSPC", true},
		{"read-only", "pwrite64,fallocate,fdatasync,ftruncate:error=EROFS", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newPlainDiskRelay(t)
			r.service.down.Store(true)
			r.start()
			r.accept(20)

			heal := r.inject(c.inject)
			a := r.sendUntil(503)
			require.Less(t, a.took, 8*time.Second, "NCS hangs up after 10 s")
			if c.atOnce {
				require.Less(t, a.took, 4*time.Second)
			}
			require.Equal(t, 503, r.probe("/readyz"))
			r.deliversAll()
			heal()
			r.sendUntil(200)
			require.Equal(t, 200, r.probe("/readyz"))
			r.accept(5)

			r.service.down.Store(true)
			r.inject(c.inject)
			r.sendUntil(503)
			r.kill()
			r.start()
			r.isOnDisk()
			r.deliversAll()
			r.terminate()
		})
	}
}

// What a process left in the state may be in memory only, after a sync that failed. The next one writes all of it again before
// it builds on it, as with the log; two pages at once at the beginning, which bbolt never does.
func TestStateIsWrittenAgainByTheNextProcess(t *testing.T) {
	t.Parallel()
	needStrace(t)
	r := newPlainDiskRelay(t)
	r.start()
	r.accept(3)
	r.kill()
	trace := filepath.Join(r.dir, "trace")
	r.launch("strace", "-D", "-I1", "-f", "-y", "-qq", "-o", trace, "-e", "trace=pwrite64,fdatasync")
	r.sendUntil(200)
	again := fmt.Sprintf("%d, 0) = ", 2*os.Getpagesize())
	r.eventually(func() bool {
		b, err := os.ReadFile(trace)
		require.NoError(t, err)
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "state.db>") && strings.Contains(line, again) {
				return true
			}
		}
		return false
	}, "not written again")
	r.deliversAll()
	r.terminate()
}

// Where only some calls fail, in the log and in the state, calls are answered 200 after another attempt, and that is true.
func TestDiskThatFailsNowAndThen(t *testing.T) {
	t.Parallel()
	needStrace(t)
	for _, fault := range []string{"fdatasync:error=EIO:when=2+3", "pwrite64:error=EIO:when=3+4", "fallocate:error=ENOSPC:when=1+2"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			r := newPlainDiskRelay(t)
			r.start()
			r.accept(5)
			for range 3 { // lives
				heal := r.inject(fault)
				for range 25 {
					require.Contains(t, []int{200, 503}, r.send().code)
				}
				r.kill() // before it could make good what it knows to be wrong
				heal()
				r.start()
				r.isOnDisk()
			}
			require.Greater(t, len(r.acknowledged), 40)
			r.deliversAll()
			r.terminate()
		})
	}
}

// With a slow disk answers are slow, and nothing else.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	needStrace(t)
	r := newPlainDiskRelay(t)
	r.start()
	heal := r.inject("fdatasync:delay_enter=300000")
	for range 5 {
		a := r.send()
		require.Equal(t, 200, a.code)
		require.GreaterOrEqual(t, a.took, 300*time.Millisecond, "answered before it was on disk")
	}
	r.kill()
	heal()
	r.start()
	r.isOnDisk()
	r.deliversAll()
	r.terminate()
}

// A disk that fails at start is no reason to end: what it holds is delivered, and it may be well again soon.
func TestStartOnFailingDisk(t *testing.T) {
	t.Parallel()
	needStrace(t)
	for _, inject := range []string{"fdatasync:error=EIO", "pwrite64:error=EIO", "fallocate:error=ENOSPC"} {
		t.Run(inject, func(t *testing.T) {
			t.Parallel()
			r := newPlainDiskRelay(t)
			r.service.down.Store(true)
			r.start()
			r.accept(20)
			r.kill()
			r.launch("strace", "-D", "-I1", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+syscalls(inject), "-e", "inject="+inject)
			r.eventually(func() bool { return r.probe("/livez") == 200 }, "never alive")
			r.sendUntil(503)
			r.deliversAll()
			r.letGo()
			r.sendUntil(200)
			r.kill()
			r.start()
			r.isOnDisk()
			r.deliversAll()
			r.terminate()
		})
	}
}

func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	if out, err := exec.Command("strace", "-f", "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("needs the right to trace processes: %v: %s", err, out)
	}
}

// inject puts a fault under the running relay until the function it gives is called.
func (r *diskRelay) inject(fault string) (heal func()) {
	r.t.Helper()
	cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+syscalls(fault), "-e", "inject="+fault, "-p", fmt.Sprint(r.child.cmd.Process.Pid))
	require.NoError(r.t, cmd.Start())
	var once sync.Once
	heal = func() {
		once.Do(func() {
			cmd.Process.Signal(os.Interrupt)
			cmd.Wait() // its status is that of the signal
		})
	}
	r.t.Cleanup(heal)
	r.eventually(func() bool { return r.tracer() != 0 }, "strace does not attach")
	return heal
}

// syscalls are those that a fault concerns.
func syscalls(fault string) string { return fault[:strings.IndexByte(fault, ':')] }

// letGo ends the tracer of a relay that was launched under one.
func (r *diskRelay) letGo() {
	r.t.Helper()
	require.NoError(r.t, syscall.Kill(r.tracer(), syscall.SIGINT))
	r.eventually(func() bool { return r.tracer() == 0 }, "strace does not let go")
}

// tracer is the process that traces all threads of the relay, 0 = none.
func (r *diskRelay) tracer() (pid int) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", r.child.cmd.Process.Pid))
	require.NoError(r.t, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that ended
		}
		_, rest, _ := strings.Cut(string(b), "TracerPid:")
		if _, err := fmt.Sscan(rest, &pid); err != nil || pid == 0 {
			return 0
		}
	}
	return pid
}

// isOnDisk asks a process that knows nothing but the disk for everything that was acknowledged.
func (r *diskRelay) isOnDisk() {
	r.t.Helper()
	for _, body := range r.acknowledged {
		a, err := r.call([]byte(body))
		require.NoError(r.t, err)
		require.Equal(r.t, "duplicate", a.status)
	}
}
