package deliver

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"ncs-relay/relay"
)

// reloadGrace is how long the Sends of a changed or removed sink may go on before they are cut off. What is cut off
// has an unknown outcome and is sent again.
const reloadGrace = 2 * time.Second

type reloadRequest struct {
	specs     []SinkSpec
	meanwhile func() error
	done      chan error
}

// Reload replaces the sinks while events are delivered; Run must be running. In between, when new and changed sinks are there and
// removed ones are there yet, it calls meanwhile, which takes up the rules that name them. After an error everything is as it was. A
// sink is known by its name: an unchanged one only makes new connections, a changed one goes on from the same place, a new one
// starts with the events that come, and a removed one keeps what it is owed.
func (s *Sinks) Reload(ctx context.Context, specs []SinkSpec, meanwhile func() error) error {
	r := reloadRequest{specs, meanwhile, make(chan error, 1)}
	select {
	case s.reloads <- r:
		return <-r.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// apply runs on the goroutine of Run. New and changed sinks come first, since what meanwhile takes up may name them; removed ones
// end last, when nothing names them any more.
func (s *Sinks) apply(ctx, hard context.Context, request reloadRequest) error {
	var undo []func() error
	back := func(err error) error {
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
		return err
	}
	wanted := make(map[string]bool)
	var kept []*running
	for _, spec := range allSinks(request.specs) {
		wanted[spec.Name] = true
		old := s.sink(spec.Name)
		if old != nil && old.same(spec) {
			kept = append(kept, old)
			continue
		}
		if err := s.replace(ctx, hard, old, spec); err != nil {
			return back(err)
		}
		undo = append(undo, func() error {
			if old == nil {
				return s.remove(spec.Name)
			}
			return s.replace(ctx, hard, s.sink(spec.Name), old.SinkSpec)
		})
	}
	if err := request.meanwhile(); err != nil {
		return back(err)
	}
	for _, r := range kept {
		reconnect(r.sink)
	}

	var errs []error
	for name := range s.sinks {
		if !wanted[name] {
			errs = append(errs, s.remove(name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.log.Error("a removed sink did not close", "error", err)
	}
	return nil
}

func (s *Sinks) sink(name string) *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sinks[name]
}

func (s *Sinks) setSink(name string, r *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r == nil {
		delete(s.sinks, name)
	} else {
		s.sinks[name] = r
	}
}

// replace ends the old sink, if any, before it builds the new one: both may need the same file. If the new one cannot
// be built the old one is built again.
func (s *Sinks) replace(ctx, hard context.Context, old *running, spec SinkSpec) error {
	if old != nil {
		if err := old.end(); err != nil {
			s.log.Error("a changed sink did not close", "sink", spec.Name, "error", err)
		}
	}
	r, err := s.build(spec)
	if err != nil && old != nil {
		var again error
		if r, again = s.build(old.SinkSpec); again != nil {
			s.setSink(spec.Name, nil) // it keeps what it is owed; the next reload or start tries again
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
		s.setSink(spec.Name, r)
	}
	return err
}

// remove ends a sink. What it is owed stays in the journal under its name.
func (s *Sinks) remove(name string) error {
	r := s.sink(name)
	s.setSink(name, nil)
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

// same reports whether a sink is defined as before.
func (r *running) same(spec SinkSpec) bool {
	return reflect.DeepEqual(r.Config, spec.Config) && reflect.DeepEqual(r.Catalogue, spec.Catalogue)
}

// reconnect lets a sink that keeps connections make new ones.
func reconnect(s relay.Sink) {
	if r, ok := s.(relay.Reconnecter); ok {
		r.Reconnect()
	}
}
