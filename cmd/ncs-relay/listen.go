package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/relay"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/telemetry"
)

func listenCommand() *cobra.Command {
	var l listening
	cmd := &cobra.Command{
		Use:   "listen --forward-to URL",
		Short: "Send a copy of what a running relay accepts to a service on this machine, for as long as it runs",
		Long: `listen sends a copy of each event that a running relay accepts from now on to a service of yours, as an HTTP sink would: the same
body and headers, Agora's signatures included, and a Standard Webhooks signature with a secret that it makes and prints at its
start. With --sink it is what that sink is owed. Nothing is owed to you: what comes while listen does not run, or faster than the
service takes it, is lost to you and to nobody else, and listen says how many events that were. Nothing is tried twice.`,
		Args: noArgs,
	}
	filter := addFilter(cmd, "sink", "source", "product", "event", "entity")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if l.url == "" {
			return usagef("--forward-to is needed")
		}
		c, given, err := clientAndFilter(&l.admin, filter)
		if err != nil {
			return err
		}
		return l.run(cmd, c, query(given))
	}
	l.admin.add(cmd)
	cmd.Flags().StringVar(&l.url, "forward-to", "", "where to post, such as http://localhost:3000/hooks")
	return cmd
}

// Pauses before listen calls again: they double, and half of each is left to chance.
const (
	firstWait   = time.Second
	longestWait = 30 * time.Second
)

// listening is one run of listen.
type listening struct {
	admin adminFlags
	url   string

	sink  relay.Sink
	out   io.Writer
	heard bool // the relay has answered this call
}

func (l *listening) run(cmd *cobra.Command, c *adminClient, query url.Values) error {
	l.out = cmd.OutOrStdout()
	key := make([]byte, 32)
	rand.Read(key) // never fails
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	var err error
	if l.sink, err = l.build(cmd, secret); err != nil {
		return err
	}
	defer l.sink.Close()
	fmt.Fprintf(l.out, "secret of webhook-signature: %s\n", secret)

	ever, wait := false, time.Duration(0)
	for {
		l.heard = false
		err := c.stream(cmd.Context(), "listen", query, l.line(cmd.Context()))
		ever = ever || l.heard
		var final *usageError
		switch {
		case cmd.Context().Err() != nil:
			return nil
		case !ever, errors.As(err, &final): // a wrong address or filter does not get well
			return err
		case l.heard:
			wait = firstWait
		default:
			wait = min(2*wait, longestWait)
		}
		wait := wait/2 + mathrand.N(wait/2)
		fmt.Fprintf(cmd.ErrOrStderr(), "the stream ended (%v); what comes now is not heard; again in %s\n", err, wait.Round(100*time.Millisecond))
		select {
		case <-time.After(wait):
		case <-cmd.Context().Done():
			return nil
		}
	}
}

// build makes the HTTP sink of a configuration that has nothing else, so that what it sends is what a sink sends.
func (l *listening) build(cmd *cobra.Command, secret string) (relay.Sink, error) {
	quoted, err := json.Marshal(l.url) // JSON is YAML
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`sources: [{name: listen, path: /, secrets: [none-is-checked]}]
sinks: [{name: listen, http: {url: %s, standard_webhooks: {secrets: [%q]}}}]
unmatched: [listen]
`, quoted, secret)
	none := func(string) (string, bool) { return "", false }
	cfg, report := config.Parse("--forward-to", []byte(text), ".", none, kinds)
	if err := report.Err(); err != nil {
		return nil, &usageError{err}
	}
	log, err := telemetry.NewLogger(cfg.Log, cmd.ErrOrStderr(), isTerminal(cmd.ErrOrStderr()))
	if err != nil {
		return nil, err
	}
	return cfg.Sinks[0].Spec("ncs-relay/"+buildVersion(), log).Build()
}

// line takes a line of the stream.
func (l *listening) line(ctx context.Context) func([]byte) error {
	return func(line []byte) error {
		if !l.heard {
			l.heard = true
			fmt.Fprintln(l.out, "listening")
		}
		if len(line) == 0 {
			return nil
		}
		var h struct {
			gateway.Heard
			Lost uint64 `json:"lost"`
		}
		if err := json.Unmarshal(line, &h); err != nil {
			return fmt.Errorf("the relay's line: %w", err)
		}
		if h.Lost > 0 {
			fmt.Fprintf(l.out, "%d EVENTS WERE LOST to this listener: the service takes them too slowly\n", h.Lost)
			return nil
		}
		l.forward(ctx, &h.Heard)
		return nil
	}
}

// forward makes one try, as a sink does.
func (l *listening) forward(ctx context.Context, h *gateway.Heard) {
	event := &relay.Event{
		Position: h.Position, ID: h.ID, Source: h.Source, Entity: h.Entity, ReceivedAt: h.ReceivedAt, ContentType: h.ContentType,
		Info:        ncs.Info{ProductID: h.ProductID, Product: h.Product, EventType: h.EventType, Event: h.Event, Category: h.Category, Known: true},
		SignatureV1: h.SignatureV1, SignatureV2: h.SignatureV2, Body: h.Bytes(),
	}
	began := time.Now()
	_, err := l.sink.Send(ctx, l.sink.Lane(event), []relay.Attempt{{Event: event, Number: 1}})
	verdict := "taken"
	if err != nil {
		verdict = clean(err.Error())
	}
	fmt.Fprintf(l.out, "%s  %s  %s  %s  (%s)\n", h.ID, eventName(h.EventInfo), dash(clean(h.Entity)), verdict, time.Since(began).Round(time.Millisecond))
}

// silence is how long a stream may be without a line: the relay sends one every 10 s.
const silence = 35 * time.Second

// stream calls fn with each line of an answer that goes on. Its error says why it ended.
func (c *adminClient) stream(ctx context.Context, path string, query url.Values, fn func(line []byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(silence, func() { cancel(errors.New("nothing was heard for " + silence.String())) })
	defer quiet.Stop()
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return c.refusal(resp, b)
	}
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		quiet.Reset(silence)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return fmt.Errorf("the relay is gone: %w", err)
		}
		if err := fn(line[:len(line)-1]); err != nil {
			return err
		}
	}
}
