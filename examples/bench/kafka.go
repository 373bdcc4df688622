package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"

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

// startKafka starts one real broker, as the tests do.
func startKafka(h *host) (cluster *kafkatest.Cluster, err error) {
	testing.Init() // the starter asks for -test.short
	if err := flag.CommandLine.Parse(nil); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { // which Fatalf may end
		defer close(done)
		cluster = kafkatest.Start(h, kafkatest.Options{Config: map[string]string{"num.network.threads": "3", "num.io.threads": "8"}})
	}()
	<-done
	if cluster == nil {
		return nil, errors.Join(errors.New("no Kafka could be started"), h.err)
	}
	return cluster, nil
}
