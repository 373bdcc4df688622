package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ncs-relay/relay/porttest"
)

// relayOptions say which relay is measured.
type relayOptions struct {
	sink  string // YAML of the sink's destination; empty: no event is owed to anybody
	rules int    // rules that match nothing, before the one that matches
	cores int    // 0: all

	journal string // YAML of a journal that is not on the disk
}

// relay is a running ncs-relay.
type relay struct {
	*process
	options        relayOptions
	binary, dir    string
	address, admin string
}

// build builds the relay as CI does.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "ncs-relay")
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "ncs-relay").Output()
	if err != nil {
		return "", fmt.Errorf("find the relay (bench runs in its own folder): %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "./cmd/ncs-relay")
	cmd.Dir, cmd.Env = strings.TrimSpace(string(module)), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the relay: %w\n%s", err, out)
	}
	return path, nil
}

// newRelay writes a configuration into dir, which must be empty.
func newRelay(binary, dir string, opts relayOptions) (*relay, error) {
	r := &relay{options: opts, binary: binary, dir: dir, address: porttest.Free(), admin: porttest.Free()}
	return r, os.WriteFile(filepath.Join(dir, "relay.yaml"), []byte(r.yaml()), 0o600)
}

func (r *relay) yaml() string {
	sink, to := "file: {path: out/never.jsonl}", "rtc"
	if r.options.sink != "" {
		sink, to = r.options.sink, "cloud_recording"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `listen: %q
admin: {listen: %q}
log: {level: warn}
shutdown: {delay: 0s}
sources:
  - {name: ncs, path: /ncs, secrets: [%q]}
sinks:
  - {name: out, %s}
%sroutes:
`, r.address, r.admin, secret, sink, r.options.journal)
	for i := range r.options.rules {
		fmt.Fprintf(&b, "  - {match: {product: cloud_recording, event: [recorder_leave, session_exit], channel: \"room-%d-*\"}, to: [out]}\n", i)
	}
	fmt.Fprintf(&b, "  - {match: {product: %s}, to: [out]}\n", to)
	return b.String()
}

// start starts it and returns when it is ready.
func (r *relay) start(ctx context.Context) error {
	var env []string
	if r.options.cores > 0 {
		env = append(env, fmt.Sprint("GOMAXPROCS=", r.options.cores))
	}
	p, err := spawn(ctx, filepath.Join(r.dir, "relay.log"), env, r.binary, "serve", "-c", filepath.Join(r.dir, "relay.yaml"))
	if err != nil {
		return err
	}
	r.process = p
	return p.await(ctx, func() bool {
		resp, err := http.Get("http://" + r.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// books are the accounts of the relay.
type books struct {
	Sources []struct{ Accepted, Duplicates int }
	Sinks   []struct {
		Name                     string
		Delivered, Dead, Pending int
	}
	Unjudged   int
	Unsure     string `json:"unjudged_error"`
	Unanswered []struct{ Error string }
}

func (b *books) accepted() int { return b.Sources[0].Accepted }

// sink returns what is delivered and pending at the one sink; an error if anything was given up.
func (b *books) sink() (delivered, pending int, err error) {
	for _, s := range b.Sinks {
		if s.Name == "out" {
			if s.Dead > 0 {
				return 0, 0, fmt.Errorf("%d deliveries were given up", s.Dead)
			}
			return s.Delivered, s.Pending, nil
		}
	}
	return 0, 0, fmt.Errorf("no sink in the status")
}

func (r *relay) books() (*books, error) {
	var b books
	resp, err := http.Get("http://" + r.admin + "/api/v1/status")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status: %s", resp.Status)
	}
	err = json.NewDecoder(resp.Body).Decode(&b)
	if err == nil && len(b.Sources) != 1 {
		err = fmt.Errorf("%d sources in the status", len(b.Sources))
	}
	return &b, err
}

// drained returns when nothing is pending, and nothing can become so that was answered.
func (r *relay) drained(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		b, err := r.books()
		if err != nil {
			return err
		}
		delivered, pending, err := b.sink()
		if err != nil || pending+b.Unjudged+len(b.Unsure)+len(b.Unanswered) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d delivered, %d still pending after %v", delivered, pending, within)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// pause and resume are what an operator types.
func (r *relay) lever(ctx context.Context, verb string) error {
	cmd := exec.CommandContext(ctx, r.binary, "sinks", verb, "out", "--admin", "http://"+r.admin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sinks %s: %w\n%s", verb, err, out)
	}
	return nil
}
