package member

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// owners is who may act on each shard; "" = nobody.
func (t table) owner(shard int32) string {
	for name, owned := range t.Owners {
		if slices.Contains(owned, shard) {
			return name
		}
	}
	return ""
}

func (t table) mayHave(name string) []int32 { return slices.Concat(t.Owners[name], t.Giving[name]) }

// checkTable: each shard has one owner, or somebody gives it up, or all refuse it; nobody has what another has or may have.
func checkTable(t require.TestingT, made table, generation, shards int32, claims []claim) {
	having := holders(generation, shards, claims)
	for shard := range shards {
		owner, giving := made.owner(shard), 0
		for _, given := range made.Giving {
			if slices.Contains(given, shard) {
				giving++
			}
		}
		for _, holder := range having[shard] {
			name := claims[holder].name
			require.True(t, owner == name || owner == "" && slices.Contains(made.Giving[name], shard),
				"shard %d of %s is given to %q while %s has it", shard, name, owner, name)
		}
		if owner == "" && giving == 0 {
			for _, c := range claims {
				require.True(t, c.Leaving || slices.Contains(c.Refused, shard), "nobody has shard %d, which %s would take", shard, c.name)
			}
		}
		require.False(t, owner != "" && giving > 0, "shard %d has an owner and is given up", shard)
	}
}

// drawClaims makes members that know the table of the last generation, and whose shards nobody else has.
func drawClaims(t *rapid.T, generation, shards int32) []claim {
	n := rapid.IntRange(1, 6).Draw(t, "members")
	claims := make([]claim, n)
	for i := range claims {
		claims[i] = claim{name: fmt.Sprintf("relay-%d", i), Attended: generation - 1, Table: table{Generation: generation - 1}}
	}
	for shard := range shards {
		if i := rapid.IntRange(-2, n-1).Draw(t, "holder"); i >= 0 {
			claims[i].Owned = append(claims[i].Owned, shard)
		}
	}
	return claims
}

func TestAssignmentIsSafeBalancedAndMovesTheFewest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		shards := rapid.Int32Range(0, 30).Draw(t, "shards")
		claims := drawClaims(t, 9, shards)
		made := assign(9, shards, claims)
		checkTable(t, made, 9, shards, claims)

		shuffled := slices.Clone(claims)
		rapid.Permutation(shuffled).Draw(t, "order")
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		require.Equal(t, made, assign(9, shards, shuffled), "the order of members matters")

		moved := 0
		for _, giving := range made.Giving {
			moved += len(giving)
		}
		require.Equal(t, fewestMoves(claims, int(shards)), moved)

		next := settle(claims, made)
		made = assign(10, shards, next)
		require.Empty(t, made.Giving, "the second round still moves something")
		least, most := int(shards), 0
		for _, c := range claims {
			least, most = min(least, len(made.Owners[c.name])), max(most, len(made.Owners[c.name]))
		}
		require.LessOrEqual(t, most-least, 1)
		require.Equal(t, made.Owners, assign(11, shards, settle(next, made)).Owners, "nothing has happened, and something moves")
	})
}

// fewestMoves is how many shards must change hands: what is above the shares, the larger ones going to those who have the most.
func fewestMoves(claims []claim, shards int) (moves int) {
	have := make([]int, len(claims))
	for i, c := range claims {
		have[i] = len(c.Owned)
	}
	slices.SortFunc(have, func(a, b int) int { return b - a })
	for i, n := range have {
		share := shards / len(claims)
		if i < shards%len(claims) {
			share++
		}
		moves += max(0, n-share)
	}
	return moves
}

// settle is what members claim after they have followed a table.
func settle(claims []claim, made table) []claim {
	next := slices.Clone(claims)
	for i, c := range next {
		next[i].Attended, next[i].Table, next[i].Owned = made.Generation, made, slices.Sorted(slices.Values(made.Owners[c.name]))
	}
	return next
}

func TestUnfitAndLeavingReplicasArePassedOver(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		shards := rapid.Int32Range(0, 20).Draw(t, "shards")
		claims := drawClaims(t, 9, shards)
		for i := range claims {
			claims[i].Leaving = rapid.IntRange(0, 4).Draw(t, "leaving") == 0
			for shard := range shards {
				if rapid.IntRange(0, 5).Draw(t, "refuses") == 0 {
					claims[i].Refused = append(claims[i].Refused, shard)
				}
			}
		}
		generation, made := int32(9), table{}
		for range 60 { // each round moves only what makes the shares more even, so there is an end
			made = assign(generation, shards, claims)
			checkTable(t, made, generation, shards, claims)
			for _, c := range claims {
				require.False(t, c.Leaving && len(made.Owners[c.name]) > 0, "%s leaves and gets something", c.name)
				for _, shard := range c.Refused {
					require.NotContains(t, made.Owners[c.name], shard, "%s refuses it", c.name)
				}
			}
			if len(made.Giving) == 0 {
				return
			}
			claims = settle(claims, made)
			generation++
		}
		t.Fatalf("shards go on moving: %v", made.Giving)
	})
}

func TestWhatASilentReplicaMayHaveIsGivenToNobody(t *testing.T) {
	t.Parallel()
	last := table{Generation: 7, Owners: map[string][]int32{"a": {0, 1}, "b": {2}}, Giving: map[string][]int32{"b": {3}}}
	claims := []claim{
		{name: "a", Attended: 7, Table: last, Owned: []int32{0, 1}},
		{name: "b", Attended: 6, Table: table{Generation: 6}}, // joined when it had nothing, and was given 2 and 3 since
		{name: "c"},
	}
	made := assign(8, 6, claims)
	checkTable(t, made, 8, 6, claims)
	require.Equal(t, []int32{2, 3}, made.Owners["b"])
	require.Equal(t, []int32{4, 5}, made.Owners["c"])
	require.Empty(t, made.Giving)
}

// Generation 7 was given to a and b; a has crashed since and knows nothing, b is silent. What it has is in no table.
func TestWithoutTheLastTableNothingFreeIsGivenAway(t *testing.T) {
	t.Parallel()
	claims := []claim{
		{name: "a"},
		{name: "b", Attended: 6, Table: table{Generation: 6}},
		{name: "c", Attended: 7, Table: table{Generation: 6}, Owned: []int32{5}},
	}
	made := assign(8, 6, claims)
	require.Equal(t, map[string][]int32{"c": {5}}, made.Owners)
	require.Equal(t, map[string][]int32{"a": {0, 1, 2, 3, 4}, "b": {0, 1, 2, 3, 4}}, made.Giving)

	claims = settle(claims[:1], made) // a says that it has nothing of that; b is still silent
	claims = append(claims, claim{name: "b", Attended: 6, Table: table{Generation: 6}},
		claim{name: "c", Attended: 8, Table: made, Owned: []int32{5}})
	made = assign(9, 6, claims)
	for shard := range int32(5) {
		require.Contains(t, made.mayHave("b"), shard)
		require.NotContains(t, made.Owners["a"], shard)
		require.NotContains(t, made.Owners["c"], shard)
	}
}

func TestATableNamesTheStartsAndWhoMayHaveHadIt(t *testing.T) {
	t.Parallel()
	last := table{Generation: 7, Owners: map[string][]int32{"a": {0}, "b": {1}}, Starts: map[string]string{"a": "a1", "b": "b1", "c": "c1"}}
	made := assign(8, 2, []claim{
		{name: "a", start: "a1", Attended: 7, Table: last, Owned: []int32{0}},
		{name: "b", start: "b2"},
		{name: "c", start: "c2"}, // the one before had nothing
	})
	require.Equal(t, map[string]string{"a": "a1", "b": "b2", "c": "c2"}, made.Starts)
	require.Equal(t, map[string]string{"b": "b1"}, made.Heirs)
	require.Equal(t, "b1", made.before("b", "b2"))
	require.Equal(t, "b2", made.before("b", "b3"))
	require.Empty(t, made.before("a", "a1"))
	require.Empty(t, made.before("d", "d1"))
}

func TestAShardClaimedByTwoIsOfTheNewerGeneration(t *testing.T) {
	t.Parallel()
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		claims := []claim{
			{name: "a", Attended: 8, Table: table{Generation: 5}, Owned: []int32{0}},
			{name: "b", Attended: 8, Table: table{Generation: 8}, Owned: []int32{0}},
		}
		made := assign(9, 1, []claim{claims[order[0]], claims[order[1]]})
		require.Equal(t, "b", made.owner(0))
		require.Empty(t, made.Giving)
	}
}

// TestAnyHistoryOfRounds: replicas crash, come back, are silent, miss what they were given. No shard is ever held by two.
func TestAnyHistoryOfRounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const shards = 7
		w := newWorld(rapid.IntRange(2, 4).Draw(t, "replicas"), shards)
		for range rapid.IntRange(1, 40).Draw(t, "rounds") {
			w.round(t)
			w.check(t)
		}
		w.calm = true
		for range 4 {
			w.round(t)
			w.check(t)
		}
		held := 0
		for _, r := range w.replicas {
			held += len(r.holdings.open)
		}
		require.Equal(t, shards, held, "not all shards have an owner when all is well")
	})
}

// world is a group whose members are the real claims and holdings, and whose coordinator keeps the last claim and the last
// assignment of each member, as Kafka's does.
type world struct {
	shards     int32
	generation int32
	replicas   map[string]*replica
	calm       bool
}

type replica struct {
	said     claim // as the coordinator has it
	given    table // what the coordinator would give it again
	member   bool
	attended int32
	table    table
	holdings *holdings
}

func newWorld(n int, shards int32) *world {
	w := &world{shards: shards, replicas: make(map[string]*replica)}
	for i := range n {
		w.replicas[fmt.Sprintf("relay-%d", i)] = &replica{holdings: newHoldings()}
	}
	return w
}

func (w *world) names() []string { return slices.Sorted(maps.Keys(w.replicas)) }

// round makes one generation. Silent members are there by their old claims.
func (w *world) round(t *rapid.T) {
	events := map[string]string{}
	for _, name := range w.names() {
		r := w.replicas[name]
		event := "joins"
		if !w.calm {
			event = rapid.SampledFrom([]string{"joins", "joins", "joins", "silent", "crashes and is back", "expires", "releases and joins"}).Draw(t, name)
		}
		events[name] = event
		switch event {
		case "silent":
			continue
		case "expires": // its lease is over
			r.forget()
			r.member = false
			continue
		case "crashes and is back":
			if r.member { // given what it had, without a round
				r.forget()
				r.holdings = newHoldings()
				r.said = claim{name: name}
				if r.given.Generation == w.generation {
					r.table, r.attended = r.given, w.generation
					r.holdings.assign(r.given.Owners[name])
					r.holdings.show()
				}
				continue
			}
			r.holdings = newHoldings()
		case "releases and joins":
			for shard := range r.holdings.closing {
				r.holdings.released(shard)
			}
		}
		if w.calm {
			for shard := range r.holdings.closing {
				r.holdings.released(shard)
			}
		}
		r.said = claim{name: name, Attended: r.attended, Table: r.table, Owned: r.holdings.claimed()}
		r.member = true
	}
	var claims []claim
	for _, name := range w.names() {
		if w.replicas[name].member {
			claims = append(claims, w.replicas[name].said)
		}
	}
	if len(claims) == 0 {
		return
	}
	w.generation++
	made := assign(w.generation, w.shards, claims)
	lost := !w.calm && rapid.IntRange(0, 5).Draw(t, "nobody is given it") == 0 // the leader crashes before
	for _, name := range w.names() {
		r := w.replicas[name]
		joined := r.member && events[name] != "silent" && !(events[name] == "crashes and is back" && r.said.Attended == 0 && r.attended != 0)
		if !r.member {
			continue
		}
		if joined {
			r.attended = w.generation
		}
		if lost {
			r.given = table{}
			continue
		}
		r.given = made
		if joined && (w.calm || rapid.IntRange(0, 5).Draw(t, name+" is given it") > 0) {
			r.table = made
			r.holdings.assign(made.Owners[name])
			r.holdings.show()
		}
	}
}

func (r *replica) forget() {
	r.holdings.expel()
	r.attended, r.table, r.given = 0, table{}, table{}
}

func (w *world) check(t *rapid.T) {
	holder := map[int32]string{}
	for _, name := range w.names() {
		for _, shard := range w.replicas[name].holdings.claimed() {
			require.Empty(t, holder[shard], "shard %d is held by %s, too", shard, name)
			holder[shard] = name
		}
	}
}
