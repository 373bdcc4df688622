package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// answers are what a load met.
type answers struct {
	ok        int
	refused   int // answers other than 200
	latencies []time.Duration
}

// percentile returns the p-th of a hundred parts of the latencies, which must be sorted.
func (a *answers) percentile(p float64) time.Duration {
	if len(a.latencies) == 0 {
		return 0
	}
	return a.latencies[min(len(a.latencies)-1, int(p/100*float64(len(a.latencies))))]
}

// load sends calls over a fixed number of connections, on which one call follows the other.
type load struct {
	addresses   []string // which the connections take in turn
	connections int
	calls       *calls
	next        atomic.Int64 // the next call
}

// closed sends for d, each connection its next call when the last is answered.
func (l *load) closed(ctx context.Context, d time.Duration) (*answers, error) {
	until := time.Now().Add(d)
	return l.run(ctx, func() (int, time.Time, bool) {
		now := time.Now()
		i := int(l.next.Add(1)) - 1
		return i, now, now.Before(until) && i < l.calls.len()
	})
}

// count sends n calls as fast as they are answered.
func (l *load) count(ctx context.Context, n int) (*answers, error) {
	end := int(l.next.Load()) + n
	defer l.next.Store(int64(end)) // each connection asked for one more
	return l.run(ctx, func() (int, time.Time, bool) {
		i := int(l.next.Add(1)) - 1
		return i, time.Now(), i < end
	})
}

// open sends rate calls a second for d, whatever the answers take. A latency counts from when the call was due, not from when
// a connection was free for it, so a far side that stalls is charged for all the calls that came meanwhile.
func (l *load) open(ctx context.Context, rate float64, d time.Duration) (*answers, error) {
	begin, first := time.Now(), int(l.next.Load())
	n := min(int(rate*d.Seconds()), l.calls.len()-first)
	defer l.next.Store(int64(first + n)) // each connection asked for one more
	return l.run(ctx, func() (int, time.Time, bool) {
		i := int(l.next.Add(1)) - 1
		if i >= first+n {
			return 0, time.Time{}, false
		}
		due := begin.Add(time.Duration(float64(i-first) / rate * float64(time.Second)))
		time.Sleep(time.Until(due))
		return i, due, true
	})
}

// run has each connection send what take says until take says no.
func (l *load) run(ctx context.Context, take func() (call int, since time.Time, ok bool)) (*answers, error) {
	each := make([]answers, l.connections)
	errs := make([]error, l.connections)
	var wg sync.WaitGroup
	for i := range l.connections {
		wg.Go(func() { errs[i] = l.connection(ctx, l.addresses[i%len(l.addresses)], &each[i], take) })
	}
	wg.Wait()
	all := &answers{}
	for i := range each {
		if errs[i] != nil {
			return nil, errs[i]
		}
		all.ok += each[i].ok
		all.refused += each[i].refused
		all.latencies = append(all.latencies, each[i].latencies...)
	}
	slices.Sort(all.latencies)
	if all.ok == 0 {
		return nil, errors.New("no call was answered")
	}
	if all.refused > 0 {
		return nil, fmt.Errorf("%d of %d calls were not answered 200", all.refused, all.refused+all.ok)
	}
	return all, nil
}

func (l *load) connection(ctx context.Context, address string, a *answers, take func() (int, time.Time, bool)) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	reader := bufio.NewReaderSize(conn, 1024)
	var request []byte
	for {
		i, since, ok := take()
		if !ok {
			return ctx.Err()
		}
		request = l.calls.appendRequest(request[:0], i)
		if _, err := conn.Write(request); err != nil {
			return fmt.Errorf("send call %d: %w", i, err)
		}
		status, err := readAnswer(reader)
		if err != nil {
			return fmt.Errorf("answer to call %d: %w", i, err)
		}
		a.latencies = append(a.latencies, time.Since(since))
		if status == 200 {
			a.ok++
		} else {
			a.refused++
		}
	}
}

// readAnswer reads an answer with a Content-Length and returns its status. net/http's reader would take more of the processor
// than the server under test.
func readAnswer(r *bufio.Reader) (status int, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("answer begins with %q", line)
	}
	status, err = strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, fmt.Errorf("answer begins with %q", line)
	}
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		name, value, found := bytes.Cut(bytes.TrimSpace(line), []byte(": "))
		if !found {
			break
		}
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		}
	}
	_, err = r.Discard(length)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return status, err
}

// callOnce makes one call on a connection of its own.
func callOnce(address string, request []byte) (status int, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	return readAnswer(bufio.NewReader(conn))
}
