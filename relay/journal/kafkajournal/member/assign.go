package member

import (
	"cmp"
	"slices"
)

// table says who has which shard in one generation of the group. The group's leader makes it, and each member is given all of
// it: members hand it on, so that the next leader knows what members have that are silent at the moment.
type table struct {
	Generation int32              `json:"generation"`
	Owners     map[string][]int32 `json:"owners,omitempty"` // by replica: what it may act on
	Giving     map[string][]int32 `json:"giving,omitempty"` // by replica: what it has, or may have, and must give up before another gets it
	Starts     map[string]string  `json:"starts,omitempty"` // by replica: which start of it has that
	Heirs      map[string]string  `json:"heirs,omitempty"`  // by replica: an earlier start that may have it, too
}

// before returns an earlier start of a replica that may have what the table gives it; "" = there is none.
func (t table) before(replica, start string) string {
	if t.Starts[replica] != start {
		return t.Starts[replica]
	}
	return t.Heirs[replica]
}

// claim is what a replica says of itself when it joins a generation. The group keeps the last one of a replica that is silent.
type claim struct {
	name  string // the replica
	start string // of it

	Attended int32   `json:"attended,omitempty"` // the generation that it took part in before; 0 = none, it is new
	Table    table   `json:"table"`              // of the last generation of which it was given one
	Owned    []int32 `json:"owned,omitempty"`    // what it has, and what it is giving up and not yet done with
	Refused  []int32 `json:"refused,omitempty"`  // what it cannot have
	Leaving  bool    `json:"leaving,omitempty"`  // it wants none
	Guarding bool    `json:"guarding,omitempty"` // it acts on nothing yet: an earlier start of it may be alive
}

// assign makes the table of a generation: shards stay where they are as far as the members' numbers of shards differ by one at
// most, and none is given to anybody while another has it or may have it. It is a pure function; the order of claims does
// not matter.
func assign(generation, shards int32, claims []claim) table {
	claims = slices.SortedFunc(slices.Values(claims), func(a, b claim) int { return cmp.Compare(a.name, b.name) })
	p := plan{claims: claims, holders: holders(generation, shards, claims), target: make([]int, shards), load: make([]int, len(claims))}
	p.keep()
	p.fill()
	p.level()
	made := table{Generation: generation, Owners: make(map[string][]int32), Giving: make(map[string][]int32),
		Starts: make(map[string]string), Heirs: make(map[string]string)}
	last := newest(claims)
	for _, c := range claims {
		made.Starts[c.name] = c.start
		if before := last.Starts[c.name]; before != c.start && len(last.Owners[c.name])+len(last.Giving[c.name]) > 0 {
			made.Heirs[c.name] = before
		}
	}
	for shard, target := range p.target {
		having := p.holders[shard]
		if target != nobody && (len(having) == 0 || len(having) == 1 && having[0] == target) {
			owner := claims[target].name
			made.Owners[owner] = append(made.Owners[owner], int32(shard))
			continue
		}
		for _, holder := range having {
			name := claims[holder].name
			made.Giving[name] = append(made.Giving[name], int32(shard))
		}
	}
	return made
}

// holders returns, for each shard, the claims of those who have it or may have it.
//
// A claim may be old: of a replica that is silent, or that came back under its name and was given what the group had for it. It may
// have got more since then, by the table of the last generation. If even that is not known, because only silent replicas were
// given it, each of them may have anything that nobody else says it has.
func holders(generation, shards int32, claims []claim) [][]int {
	having := ownedBy(shards, claims)
	last := newest(claims)
	known := last.Generation >= generation-1
	for shard, owned := range having {
		if len(owned) > 0 {
			continue
		}
		for i, c := range claims {
			if c.Attended < generation-1 && (!known || last.names(c.name, int32(shard))) {
				having[shard] = append(having[shard], i)
			}
		}
	}
	return having
}

func newest(claims []claim) (last table) {
	for _, c := range claims {
		if c.Table.Generation > last.Generation {
			last = c.Table
		}
	}
	return last
}

// ownedBy returns who says that it has each shard. If two do, one of them was thrown out and does not know; the other was
// given the shard later.
func ownedBy(shards int32, claims []claim) [][]int {
	having := make([][]int, shards)
	for i, c := range claims {
		for _, shard := range c.Owned {
			if shard < 0 || shard >= shards {
				continue
			}
			if other := having[shard]; len(other) == 0 || c.Table.Generation > claims[other[0]].Table.Generation {
				having[shard] = []int{i}
			}
		}
	}
	return having
}

// names reports whether a replica has the shard by the table, or is giving it up.
func (t table) names(replica string, shard int32) bool {
	return slices.Contains(t.Owners[replica], shard) || slices.Contains(t.Giving[replica], shard)
}

const nobody = -1

// plan is an assignment in the making. Claims are known by their index.
type plan struct {
	claims  []claim
	holders [][]int // by shard
	target  []int   // by shard: who should have it in the end
	load    []int   // by claim: how many shards are meant for it
}

func (p *plan) takes(claim int, shard int) bool {
	c := p.claims[claim]
	return !c.Leaving && !slices.Contains(c.Refused, int32(shard))
}

// keep leaves shards where they are.
func (p *plan) keep() {
	for shard, having := range p.holders {
		p.target[shard] = nobody
		if len(having) == 1 && p.takes(having[0], shard) {
			p.give(shard, having[0])
		}
	}
}

// fill gives the others to those who have the fewest.
func (p *plan) fill() {
	for shard, target := range p.target {
		if target != nobody {
			continue
		}
		least := nobody
		for i := range p.claims {
			if p.takes(i, shard) && (least == nobody || p.load[i] < p.load[least]) {
				least = i
			}
		}
		if least != nobody {
			p.give(shard, least)
		}
	}
}

func (p *plan) give(shard, claim int) {
	p.target[shard] = claim
	p.load[claim]++
}

// level moves shards from those who have the most to those who have the fewest, one by one, as long as they differ by more than one.
func (p *plan) level() {
	for p.moveOne() {
	}
}

func (p *plan) moveOne() bool {
	order := make([]int, len(p.claims)) // the most first
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.load[b], p.load[a]) })
	for _, from := range order {
		for _, to := range slices.Backward(order) {
			if p.load[from]-p.load[to] < 2 {
				break
			}
			for shard := len(p.target) - 1; shard >= 0; shard-- {
				if p.target[shard] == from && p.takes(to, shard) {
					p.load[from]--
					p.give(shard, to)
					return true
				}
			}
		}
	}
	return false
}
