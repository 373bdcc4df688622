package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child whose processor time and memory can be told from those of the others.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// spawn starts a child that says on its standard output, in one line, where it listens, if wantAddress. It dies with this process.
func spawn(ctx context.Context, log string, env []string, path string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{cmd: exec.CommandContext(ctx, path, args...), log: log, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// role runs this program once more in another role (see roles), and returns it with the address that it listens at.
func role(ctx context.Context, dir, name string, args ...string) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	ready := filepath.Join(dir, name+".address")
	p, err := spawn(ctx, filepath.Join(dir, name+".log"), []string{"BENCH_READY=" + ready}, self, append([]string{"role", name}, args...)...)
	if err != nil {
		return nil, "", err
	}
	var address string
	err = p.await(ctx, func() bool {
		text, err := os.ReadFile(ready)
		address = string(text)
		return err == nil
	})
	return p, address, err
}

// ready tells the parent of a role where it listens.
func ready(address string) error {
	file := os.Getenv("BENCH_READY")
	if err := os.WriteFile(file+".new", []byte(address), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// await returns when done is true; an error if the process ends first or 60 s pass.
func (p *process) await(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !done() {
		select {
		case <-p.ended:
			text, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s ended: %s", p.cmd.Path, tail(text))
		case <-ctx.Done():
			text, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s: %w: %s", p.cmd.Path, ctx.Err(), tail(text))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

func tail(text []byte) string { return string(text[max(0, len(text)-2000):]) }

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// cpu returns the processor time that processes have used, to a hundredth of a second each.
func cpu(pids ...int) (sum time.Duration, err error) {
	for _, pid := range pids {
		used, err := cpuOf(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name in brackets, and may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("short line in /proc")
	}
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		return 0, err
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// ownCPU is the processor time of this process: that of the generator.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memory returns the resident bytes of a process.
func memory(pid int) (int64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), "VmRSS:"); found {
			kib, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, io.ErrUnexpectedEOF
}

// brokersOf returns the Java processes that a process has started.
func brokersOf(parent int) (pids []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue
		}
		pid, rest, _ := strings.Cut(string(text), " ")
		name, rest, _ := strings.Cut(rest, ") ")
		fields := strings.Fields(rest)
		if name == "(java" && len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				return nil, err
			}
			pids = append(pids, n)
		}
	}
	return pids, nil
}
