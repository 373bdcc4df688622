// Package process runs for examples what they need on this machine: the relay, as a child that can be stopped, killed and frozen,
// and servers.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"ncs-relay/relay/porttest"
)

// Build builds the relay into dir and returns the path of the program.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "ncs-relay")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "ncs-relay/cmd/ncs-relay")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ncs-relay: %w\n%s", err, out)
	}
	return binary, nil
}

// InTempDir calls run with a directory that it removes if all went well, or run broke off because ctx ended. Otherwise it stays, and
// the error says what is left there.
func InTempDir(ctx context.Context, pattern, left string, run func(dir string) error) error {
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return err
	}
	err = run(dir)
	switch {
	case err == nil:
		return os.RemoveAll(dir)
	case ctx.Err() != nil: // whatever broke off because of it
		return errors.Join(errors.New("interrupted"), os.RemoveAll(dir))
	}
	return fmt.Errorf("%w\n(%s left in %s)", err, left, dir)
}

// Server answers at a loopback address until it is closed.
type Server struct {
	*http.Server
	Addr string
}

// Serve starts a server.
func Serve(h http.HandlerFunc) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{&http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}, l.Addr().String()}
	go s.Serve(l)
	return s, nil
}

// Relay is a running relay.
type Relay struct {
	Listen string // host:port of its public address
	Admin  string // the URL of its admin address
	Log    string // the file with its log
	cmd    *exec.Cmd
	ended  chan error
}

// Start runs the program with a configuration in dir, whose variables env sets, and waits until it is ready. DEMO_LISTEN and
// DEMO_ADMIN are the addresses that it is to have. name tells it from others in dir.
func Start(ctx context.Context, binary, dir, name string, config []byte, env ...string) (*Relay, error) {
	listen, admin := porttest.Free(), porttest.Free()
	r := &Relay{Listen: listen, Admin: "http://" + admin, Log: filepath.Join(dir, name+".log"), ended: make(chan error, 1)}
	file := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(r.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r.cmd = exec.Command(binary, "serve", "-c", file)
	r.cmd.Env = append(append(os.Environ(), env...), "DEMO_LISTEN="+listen, "DEMO_ADMIN="+admin)
	r.cmd.Stderr = log
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { r.ended <- r.cmd.Wait() }()
	if err := r.Poll(ctx, 60*time.Second, name+" does not get ready", r.Ready); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// quick asks what answers at once or not at all.
var quick = &http.Client{Timeout: time.Second}

// Ready reports whether the relay says that it can store.
func (r *Relay) Ready() bool {
	resp, err := quick.Get(r.Admin + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Status reads what the relay says at /api/v1/status.
func (r *Relay) Status(answer any) error {
	resp, err := http.Get(r.Admin + "/api/v1/status")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// Settled reports whether no sink is owed anything by the relay or, where several share a journal, by any of them.
func (r *Relay) Settled() bool {
	var status struct {
		Sinks      []struct{ Pending int }
		Unjudged   int
		Unsure     string `json:"unjudged_error"`
		Unanswered []struct{}
	}
	if r.Status(&status) != nil || status.Unjudged > 0 || status.Unsure != "" || len(status.Unanswered) > 0 {
		return false
	}
	for _, s := range status.Sinks {
		if s.Pending > 0 {
			return false
		}
	}
	return len(status.Sinks) > 0
}

// Poll waits until done says so.
func (r *Relay) Poll(ctx context.Context, most time.Duration, otherwise string, done func() bool) error {
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
			log, _ := os.ReadFile(r.Log)
			return fmt.Errorf("the relay ended: %v\n%s", err, log)
		}
	}
	return nil
}

// Stop ends the relay as an orchestrator would, unless it has ended.
func (r *Relay) Stop() error {
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	default:
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := <-r.ended
	r.ended <- err
	return err
}

// Kill ends the relay as a power cut would.
func (r *Relay) Kill() error {
	err := r.cmd.Process.Kill()
	ended := <-r.ended
	r.ended <- nil // as was meant
	if ended == nil {
		return errors.New("it had ended by itself")
	}
	return err
}

// Freeze stops the process where it is, until Thaw.
func (r *Relay) Freeze() error { return r.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw lets it go on, if it lives.
func (r *Relay) Thaw() error {
	if err := r.cmd.Process.Signal(syscall.SIGCONT); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
