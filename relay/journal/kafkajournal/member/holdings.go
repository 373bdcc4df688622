package member

import (
	"maps"
	"slices"
)

// holdings are the shards of a replica: what it was assigned, what of that it may act on, and what it has lost and is not yet
// done with. It is not safe for concurrent use.
type holdings struct {
	assigned map[int32]struct{} // in the present table
	open     map[int32]bool     // assigned, and the journal may have it; true = it has been shown
	closing  map[int32]bool     // were shown and are not open any more, but the journal is not done with them; true = nobody else may have them yet
	refused  map[int32]struct{} // not to be assigned
	changed  chan struct{}      // closed when what is open changes
}

func newHoldings() *holdings {
	return &holdings{assigned: make(map[int32]struct{}), open: make(map[int32]bool), closing: make(map[int32]bool),
		refused: make(map[int32]struct{}), changed: make(chan struct{})}
}

// assign takes over what the replica has from now on. What came back before the journal was done with it opens later.
func (h *holdings) assign(shards []int32) {
	h.assigned = make(map[int32]struct{}, len(shards))
	for _, shard := range shards {
		if _, refused := h.refused[shard]; !refused {
			h.assigned[shard] = struct{}{}
		}
	}
	h.update(true)
}

// expel takes everything away at once: others may have it already.
func (h *holdings) expel() {
	clear(h.assigned)
	for shard := range h.closing {
		h.closing[shard] = false
	}
	h.update(false)
}

// update brings what is open in line with what is assigned; held says whether nobody else may have yet what closes.
func (h *holdings) update(held bool) {
	before := len(h.open)
	maps.DeleteFunc(h.open, func(shard int32, shown bool) bool {
		_, still := h.assigned[shard]
		if !still && shown {
			h.closing[shard] = held
		}
		return !still
	})
	changed := len(h.open) < before
	for shard := range h.assigned {
		_, open := h.open[shard]
		if _, busy := h.closing[shard]; !open && !busy {
			h.open[shard], changed = false, true
		}
	}
	if changed {
		close(h.changed)
		h.changed = make(chan struct{})
	}
}

// show returns what is open, and notes that the journal knows it: what it never saw, it cannot be waited for to release.
func (h *holdings) show() []int32 {
	for shard := range h.open {
		h.open[shard] = true
	}
	return h.shards()
}

// shards are those that are open, sorted.
func (h *holdings) shards() []int32 { return slices.Sorted(maps.Keys(h.open)) }

// released notes that the journal is done with a shard, and reports whether another may have it now, who was to wait for that.
func (h *holdings) released(shard int32) (free bool) {
	held := h.closing[shard]
	delete(h.closing, shard)
	_, back := h.assigned[shard]
	h.update(true)
	return held && !back
}

// refuse gives up a shard.
func (h *holdings) refuse(shard int32) {
	h.refused[shard] = struct{}{}
	delete(h.assigned, shard)
	h.update(true)
}

// claimed are the shards that nobody else may have.
func (h *holdings) claimed() []int32 {
	all := maps.Clone(h.assigned)
	for shard, held := range h.closing {
		if held {
			all[shard] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// settling reports whether the journal still has to give up something that others may wait for.
func (h *holdings) settling() bool {
	for shard, held := range h.closing {
		if _, back := h.assigned[shard]; held && !back {
			return true
		}
	}
	return false
}
