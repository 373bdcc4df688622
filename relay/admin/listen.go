package admin

import (
	"encoding/json"
	"net/http"
	"time"
)

// listenPulse is how often a stream without events shows that it is alive.
const listenPulse = 10 * time.Second

// listen streams copies of events, a line of JSON each, until the caller or the server leaves. An empty line says that there is
// nothing new, {"lost": n} that the caller was too slow for so many events.
func (s *Server) listen(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		return
	}
	l, err := s.readList(r, "sink", "source", "product", "event", "entity")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	listener, err := s.options.Gateway.Listen(l.filter)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer listener.Close()
	control := http.NewResponseController(w)
	// The server's time-outs count from the request; this answer goes on, and each of its lines has a time of its own.
	_ = control.SetReadDeadline(time.Time{})
	send := func(line []byte) bool {
		_ = control.SetWriteDeadline(time.Now().Add(answerTimeout))
		_, err := w.Write(append(line, '\n'))
		return err == nil && control.Flush() == nil
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if !send(nil) {
		return
	}
	pulse := time.NewTicker(listenPulse)
	defer pulse.Stop()
	for {
		var line []byte
		select {
		case event := <-listener.Events:
			line, err = json.Marshal(s.options.Gateway.Heard(event))
			listener.Taken(event)
			if err != nil {
				s.options.Log.Error("an event cannot be shown to who listens", "error", err)
				continue
			}
		case <-pulse.C:
		case <-s.ending:
			return
		case <-r.Context().Done():
			return
		}
		if !send(line) {
			return
		}
		if n := listener.Lost(); n > 0 {
			if line, _ := json.Marshal(map[string]uint64{"lost": n}); !send(line) {
				return
			}
		}
	}
}
