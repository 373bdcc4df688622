package member

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/porttest"
)

// A replica as a process of its own, so that it can be killed and frozen as a whole.

const childVariable = "NCS_RELAY_TEST_MEMBER"

// orders are what a child is to do.
type orders struct {
	Brokers     []string
	Group, Name string
	Start       string
	Session     time.Duration
	Admin       string // where it answers with the id of its start
}

// actAsChild is a replica until SIGTERM comes, and notes on standard output on what it may act. It reports whether this process is
// a child.
func actAsChild() bool {
	text := os.Getenv(childVariable)
	if text == "" {
		return false
	}
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", o.Admin)
	if err != nil {
		panic(err)
	}
	go answerStart(listener, o.Start)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	m := New(Options{Brokers: kafkaconn.New(kafkaconn.Config{Brokers: o.Brokers, ClientID: o.Start}), Group: o.Group, Topic: topic, Shards: 24,
		Name: o.Name, Start: o.Start, Admin: o.Admin, Session: o.Session, AskStart: askStart,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)).With("start", o.Start)})
	var following sync.WaitGroup
	books, stopBooks := context.WithCancel(context.Background())
	following.Go(func() { giveUpAtOnce(books, m) })
	following.Go(func() { watch(books, m, os.Stdout) })
	err = m.Run(ctx)
	stopBooks()
	following.Wait()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

func answerStart(listener net.Listener, start string) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(conn, start)
		conn.Close()
	}
}

func askStart(ctx context.Context, admin string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", admin)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	start, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(start), err
}

// child is a replica in a process of its own.
type child struct {
	orders
	f      *fleet
	cmd    *exec.Cmd
	errors bytes.Buffer
	noted  chan struct{} // closed when all its notes are in the books
}

func (f *fleet) spawn(name string) *child {
	f.t.Helper()
	return f.spawnAt(name, porttest.Free())
}

func (f *fleet) spawnAt(name, admin string) *child {
	f.t.Helper()
	exe, err := os.Executable()
	require.NoError(f.t, err)
	f.mu.Lock()
	f.spawned++
	start := fmt.Sprintf("%s-%d", name, f.spawned)
	f.mu.Unlock()
	c := &child{f: f, noted: make(chan struct{}), orders: orders{Brokers: f.brokers, Group: f.group, Name: name,
		Start: start, Session: f.session, Admin: admin}}
	text, err := json.Marshal(c.orders)
	require.NoError(f.t, err)
	c.cmd = exec.Command(exe)
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	c.cmd.Stderr = &c.errors
	notes, err := c.cmd.StdoutPipe()
	require.NoError(f.t, err)
	require.NoError(f.t, c.cmd.Start())
	go func() {
		defer close(c.noted)
		lines := bufio.NewReader(notes)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return // a line that was cut off by a kill is no note
			}
			_, _ = f.books.of(c.Start).Write(line)
		}
	}()
	f.t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		c.wait()
		if f.t.Failed() {
			f.t.Logf("%s:\n%s", c.Start, c.errors.Bytes())
		}
	})
	return c
}

func (c *child) signal(s os.Signal) { require.NoError(c.f.t, c.cmd.Process.Signal(s)) }

// wait returns when the process has ended, and its exit code; -1 = it was killed.
func (c *child) wait() int {
	<-c.noted
	_ = c.cmd.Wait()
	return c.cmd.ProcessState.ExitCode()
}

func (c *child) kill() {
	c.signal(os.Kill)
	c.wait()
}

// may are the shards that it may act on, by its last note.
func (c *child) may() []string {
	note := c.f.books.last(c.Start)
	if note == "" {
		return nil
	}
	return strings.Split(note, ",")
}

func (b *books) last(start string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lives[start] == nil {
		return ""
	}
	notes := strings.TrimSuffix(b.lives[start].String(), "\n")
	_, shards, _ := strings.Cut(notes[strings.LastIndexByte(notes, '\n')+1:], " ")
	return shards
}

// awaitFair returns how long it took until the processes have all shards, in fair shares.
func (f *fleet) awaitFair(t *testing.T, all ...*child) time.Duration {
	t.Helper()
	return await(t, "fair shares", func() bool {
		total := 0
		for _, c := range all {
			n := len(c.may())
			if n < int(f.shards)/len(all) || n > (int(f.shards)+len(all)-1)/len(all) {
				return false
			}
			total += n
		}
		return total == int(f.shards)
	})
}

// Processes that are killed and frozen: what a frozen one may do when it goes on is noted by itself.
func killedAndFrozen(t *testing.T, f *fleet) {
	a, b, c := f.spawn("a"), f.spawn("b"), f.spawn("c")
	f.awaitFair(t, a, b, c)

	had := b.may()
	b.kill()
	b = f.spawnAt("b", b.Admin)
	took := await(t, "its shards are back", func() bool { return slices.Equal(b.may(), had) })
	t.Log("killed and started again: its shards are back after", took)
	require.Less(t, took, 2*time.Second)

	began := time.Now()
	c.signal(syscall.SIGSTOP)
	took = f.awaitFair(t, a, b)
	t.Log("frozen: its shards are with the others after", took)
	require.Less(t, took, f.session+3*time.Second)
	require.Greater(t, time.Since(began), f.session*8/10, "before its lease was over")
	c.signal(syscall.SIGCONT)
	f.awaitFair(t, a, b, c)

	a.signal(syscall.SIGSTOP) // and another one of its name, which cannot know whether it is alive
	second := f.spawn("a")
	f.awaitFair(t, second, b, c)
	a.signal(syscall.SIGCONT)
	require.Equal(t, 1, a.wait())
	require.Contains(t, a.errors.String(), "another replica has this name: its admin address is "+second.Admin)

	third := f.spawn("b")
	require.Equal(t, 1, third.wait(), "the first one answers")
	require.Contains(t, third.errors.String(), "another replica has this name: its admin address is "+b.Admin)

	b.kill()
	took = f.awaitFair(t, second, c)
	t.Log("killed for good: its shards are with the others after", took)
	require.Less(t, took, f.session+3*time.Second)

	c.signal(syscall.SIGTERM)
	require.Zero(t, c.wait())
	f.awaitFair(t, second)
}
