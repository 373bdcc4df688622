package gateway

import (
	"context"
	"errors"
	"fmt"
	"ncs-relay/relay"
	"reflect"
	"time"
)

// reloadGrace is how long the Sends of a changed or removed sink may go on before they are cut off. What is cut off
// has an unknown outcome and is sent again.
const reloadGrace = 2 * time.Second

type reloadRequest struct {
	settings Settings
	done     chan error
}

// Reload replaces the settings while notifications are taken and events delivered; Run must be running. On an error
// everything is as it was. A sink is known by its name: an unchanged one only makes new connections, a changed one goes on from the same
// place, a new one starts with the events that come, and a removed one keeps what it is owed.
func (g *Gateway) Reload(ctx context.Context, s Settings) error {
	r := reloadRequest{s, make(chan error, 1)}
	select {
	case g.reloads <- r:
		return <-r.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// apply runs on the goroutine of Run. Sinks come first, since the new rules may name them; then the new rules and
// sources take over at once; the sinks that no rule names any more end last.
func (g *Gateway) apply(ctx, hard context.Context, s Settings) error {
	var undo []func() error
	back := func(err error) error {
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
		return err
	}
	wanted := make(map[string]bool)
	var kept []*running
	for _, spec := range allSinks(s.Sinks) {
		wanted[spec.Name] = true
		old := g.sink(spec.Name)
		if old != nil && old.same(spec) {
			kept = append(kept, old)
			continue
		}
		if err := g.replace(ctx, hard, old, spec); err != nil {
			return back(err)
		}
		undo = append(undo, func() error {
			if old == nil {
				return g.remove(spec.Name)
			}
			return g.replace(ctx, hard, g.sink(spec.Name), old.SinkSpec)
		})
	}
	in, err := g.newIngress(s)
	if err != nil {
		return back(err)
	}
	g.dedup.configure(s.Dedup)
	g.journal.KeepKeys(s.Dedup.MaxKeys, s.Dedup.Window)
	g.ingress.Store(in)
	for _, r := range kept {
		reconnect(r.sink)
	}

	var errs []error
	for name := range g.sinks {
		if !wanted[name] {
			errs = append(errs, g.remove(name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		g.log.Error("a removed sink did not close", "error", err)
	}
	return nil
}

func (g *Gateway) sink(name string) *running {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sinks[name]
}

func (g *Gateway) setSink(name string, r *running) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r == nil {
		delete(g.sinks, name)
	} else {
		g.sinks[name] = r
	}
}

// replace ends the old sink, if any, before it builds the new one: both may need the same file. If the new one cannot
// be built the old one is built again.
func (g *Gateway) replace(ctx, hard context.Context, old *running, spec SinkSpec) error {
	if old != nil {
		if err := old.end(); err != nil {
			g.log.Error("a changed sink did not close", "sink", spec.Name, "error", err)
		}
	}
	r, err := g.build(spec)
	if err != nil && old != nil {
		var again error
		if r, again = g.build(old.SinkSpec); again != nil {
			g.setSink(spec.Name, nil) // it keeps what it is owed; the next reload or start tries again
			old.owed.Release()
			return errors.Join(err, fmt.Errorf("and the sink as it was cannot be built again: %w", again))
		}
	}
	if r != nil {
		if old != nil { // what waits for a retry may wait for this change
			for _, f := range r.feeds {
				f.dueNow()
			}
		}
		r.start(ctx, hard)
		g.setSink(spec.Name, r)
	}
	return err
}

// remove ends a sink. What it is owed stays in the journal under its name.
func (g *Gateway) remove(name string) error {
	r := g.sink(name)
	g.setSink(name, nil)
	err := r.end()
	r.owed.Release()
	return err
}

// end stops a sink's deliveries and closes it.
func (r *running) end() error {
	r.stop()
	timer := time.AfterFunc(reloadGrace, r.cut)
	defer timer.Stop()
	<-r.done
	r.cut()
	return r.sink.Close()
}

// same tells whether a sink is defined as before.
func (r *running) same(spec SinkSpec) bool {
	return reflect.DeepEqual(r.Config, spec.Config)
}

// reconnect lets a sink that keeps connections make new ones.
func reconnect(s relay.Sink) {
	if r, ok := s.(relay.Reconnecter); ok {
		r.Reconnect()
	}
}
