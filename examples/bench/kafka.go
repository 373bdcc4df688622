package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ncs-relay/relay/kafkaconn/kafkatest"
)

// host stands in for a test, which the starter of a real Kafka expects. What it does not implement is not called.
type host struct {
	testing.TB
	ctx  context.Context
	dir  string
	ends []func()
	err  error
}

func (*host) Helper()                      {}
func (h *host) Context() context.Context   { return h.ctx }
func (h *host) TempDir() string            { return h.dir }
func (h *host) Cleanup(end func())         { h.ends = append(h.ends, end) }
func (h *host) Failed() bool               { return h.err != nil }
func (h *host) Logf(f string, args ...any) { fmt.Fprintf(os.Stderr, f+"\n", args...) }
func (h *host) Fatalf(f string, args ...any) {
	h.err = fmt.Errorf(f, args...)
	runtime.Goexit()
}
func (h *host) Fatal(args ...any) { h.Fatalf("%s", fmt.Sprint(args...)) }
func (h *host) Skip(args ...any)  { h.Fatalf("%s", fmt.Sprint(args...)) }

func (h *host) end() {
	for i := len(h.ends) - 1; i >= 0; i-- {
		h.ends[i]()
	}
}

// cluster is a running Kafka.
type cluster struct {
	addresses []string
	brokers   []int // processes
	admin     *kadm.Client
	end       func()
}

// startCluster starts real brokers, as the tests do. Its files are in dir, which must not exist.
func startCluster(ctx context.Context, dir string, brokers int) (*cluster, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	others, err := brokersOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	h := &host{ctx: ctx, dir: dir}
	started, err := startKafka(h, kafkatest.Options{Brokers: brokers, Config: map[string]string{"num.network.threads": "3", "num.io.threads": "8"}})
	if err != nil {
		h.end()
		return nil, err
	}
	c := &cluster{addresses: started.Addresses()}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.addresses...))
	if err != nil {
		h.end()
		return nil, err
	}
	c.admin = kadm.NewClient(client)
	c.end = func() { client.Close(); h.end() }
	all, err := brokersOf(os.Getpid())
	c.brokers = slices.DeleteFunc(all, func(pid int) bool { return slices.Contains(others, pid) })
	return c, err
}

func (c *cluster) list() string { return `["` + strings.Join(c.addresses, `","`) + `"]` }

func startKafka(h *host, opts kafkatest.Options) (started *kafkatest.Cluster, err error) {
	testing.Init() // the starter asks for -test.short
	if err := flag.CommandLine.Parse(nil); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { // which Fatalf may end
		defer close(done)
		started = kafkatest.Start(h, opts)
	}()
	<-done
	if started == nil {
		return nil, errors.Join(errors.New("no Kafka could be started"), h.err)
	}
	return started, nil
}
