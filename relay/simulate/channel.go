package simulate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

const productRTC = 1

// session writes the events of one RTC channel from its creation to its end.
type session struct {
	rng     *rand.Rand
	e       Entity
	clock   time.Time
	project int    // first number of notice ids
	sid     string // of this session of the channel
}

// channelSession writes a channel in the live profile: hosts and an audience come, may change roles, and leave.
func channelSession(rng *rand.Rand, i int, at time.Time) Entity {
	s := &session{
		rng: rng, e: Entity{Name: fmt.Sprintf("live-%d", i+1)}, clock: at,
		project: 1_000_000_000 + rng.IntN(1_000_000_000), sid: strings.ToUpper(hexID(rng)),
	}
	s.add(101, "ts", s.ts())
	type user struct {
		uid  int
		host bool
		came time.Time
	}
	var users []user
	for n := range 2 + rng.IntN(4) {
		u := user{uid: 1000*(n+1) + rng.IntN(1000), host: n == 0 || chance(rng, 0.3), came: s.clock}
		s.add(pick(u.host, 103, 105), "uid", u.uid, "platform", 1+rng.IntN(2), "clientSeq", s.clock.UnixMilli(), "ts", s.ts())
		users = append(users, u)
	}
	for n := range users {
		if u := &users[n]; chance(rng, 0.3) {
			u.host = !u.host
			s.add(pick(u.host, 111, 112), "uid", u.uid, "clientSeq", s.clock.UnixMilli(), "ts", s.ts())
		}
	}
	for _, u := range users {
		s.add(pick(u.host, 104, 106), "uid", u.uid, "platform", 1, "clientSeq", s.clock.UnixMilli(), "reason", 1, "ts", s.ts(),
			"duration", int(s.clock.Sub(u.came).Seconds()))
	}
	s.add(102, "lastUid", users[len(users)-1].uid, "ts", s.ts())
	return s.e
}

func (s *session) add(eventType int, fields ...any) {
	var payload json.RawMessage
	if eventType == 102 { // in the order of a captured body
		payload = object(append([]any{fields[0], fields[1], "channelName", s.e.Name}, fields[2:]...)...)
	} else {
		payload = object(append([]any{"channelName", s.e.Name}, fields...)...)
	}
	noticeID := fmt.Sprintf("%d:%d:%d", s.project, s.rng.IntN(10_000_000), eventType)
	s.e.Events = append(s.e.Events, newEvent(productRTC, eventType, noticeID, s.sid, payload))
	s.clock = s.clock.Add(between(s.rng, time.Second, 30*time.Second))
}

// ts is RTC's time of an event: seconds.
func (s *session) ts() int64 { return s.clock.Unix() }

func pick(first bool, a, b int) int {
	if first {
		return a
	}
	return b
}
