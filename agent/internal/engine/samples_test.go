package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSamplesAgainstLists compares a log of samples with a list for each group, over additions, groups that go, commits
// and compacts.
func TestSamplesAgainstLists(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		compareSamples(t, seed)
	}
}

func compareSamples(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // test data
	s := &newQuantile(0.5).samples
	type group struct{ old, fresh []float64 }
	var groups []group
	for step := range 2000 {
		switch n := len(groups); {
		case n == 0 || rng.IntN(40) == 0:
			groups = append(groups, group{})
			s.grow(n + 1)
		case rng.IntN(60) == 0:
			g := rng.IntN(n)
			groups[g] = group{}
			s.drop(i32(g))
		case rng.IntN(30) == 0:
			s.commit()
			for g := range groups {
				groups[g].old, groups[g].fresh = append(groups[g].old, groups[g].fresh...), nil
			}
		case rng.IntN(200) == 0:
			var keep []int32
			var kept []group
			for g := range groups {
				if rng.IntN(4) > 0 {
					keep, kept = append(keep, i32(g)), append(kept, groups[g])
				}
			}
			s.compact(keep)
			groups = kept
			if most := s.count/samplesPerPage + 1; len(s.pages) > most {
				t.Fatalf("seed %d, step %d: %d entries lie in %d pages after a compact", seed, step, s.count, len(s.pages))
			}
		default:
			for range rng.IntN(8) {
				g := rng.IntN(n)
				v := rng.Float64()
				groups[g].fresh = append(groups[g].fresh, v)
				s.add(i32(g), v)
			}
		}
		for g := range groups {
			want := slices.Concat(groups[g].old, groups[g].fresh)
			slices.Reverse(want)
			if got := s.of(nil, i32(g)); !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d: group %d has %v, want %v", seed, step, g, got, want)
			}
			s.beginEntry()
			fresh := s.encodeNew(nil, i32(g))
			if wantBytes := len(groups[g].fresh) * 8; wantBytes == 0 && len(fresh) > 0 || wantBytes > 0 && len(fresh) <= wantBytes {
				t.Fatalf("seed %d, step %d: group %d has %d bytes to commit for %d values", seed, step, g, len(fresh), len(groups[g].fresh))
			}
		}
	}
}

// TestOutboxLetsGo holds that the memory of many insights goes when they do not come again, and stays while they do.
func TestOutboxLetsGo(t *testing.T) {
	t.Parallel()
	var o outbox
	fill := func() {
		o.data = append(o.data, make([]byte, 10*keptOutbox)...)
		o.items = append(o.items, pending{end: len(o.data)})
	}
	for range 2 * roomyResets {
		fill()
		o.reset()
		o.reset()
	}
	if cap(o.data) == 0 {
		t.Error("the memory went although insights kept coming")
	}
	for range roomyResets {
		o.reset()
	}
	if cap(o.data) != 0 || cap(o.items) != 0 {
		t.Errorf("there is room for %d bytes and %d insights long after the last", cap(o.data), cap(o.items))
	}
}
