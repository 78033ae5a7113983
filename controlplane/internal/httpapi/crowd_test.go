package httpapi

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/internal/source"
)

// fakes are connections that are only counted.
type fakes struct {
	net.Listener
	crowd *crowd
	cut   []string
	by    time.Time
}

type fakeConn struct {
	net.Conn
	all  *fakes
	name string
}

func (f *fakeConn) Close() error {
	f.all.cut = append(f.all.cut, f.name)
	return nil
}

func (f *fakeConn) SetReadDeadline(by time.Time) error {
	f.all.by = by
	return nil
}

func (f *fakes) come(name, from string) *conn {
	one := &conn{Conn: &fakeConn{all: f, name: name}, crowd: f.crowd, from: source.Site(from)}
	f.crowd.move(one, early)
	return one
}

// TestCrowd holds the bounds: who has the most connections loses the oldest of them, and nobody waits.
func TestCrowd(t *testing.T) {
	t.Parallel()
	f := &fakes{crowd: newCrowd(limits{early: 3, fresh: 2, idle: 1, leaving: 1}, nil)}
	honest := f.come("honest", "192.0.2.1:1")
	for n := range 4 {
		f.come(fmt.Sprint("greedy", n), "192.0.2.2:1")
	}
	if want := []string{"greedy0", "greedy1"}; !slices.Equal(f.cut, want) {
		t.Errorf("closed are %q, want %q", f.cut, want)
	}
	f.crowd.move(honest, fresh)
	if honest.stage != fresh {
		t.Errorf("it is at %d", honest.stage)
	}
	// Of IPv6 one site counts as one, however many addresses it has.
	f.cut = nil
	for n := range 3 {
		f.come(fmt.Sprint("six", n), fmt.Sprintf("[2001:db8::%d]:1", n))
	}
	if want := []string{"greedy2", "six0"}; !slices.Equal(f.cut, want) {
		t.Errorf("closed are %q, want %q", f.cut, want)
	}
	// Of those between two requests the oldest goes, and one that works is not counted.
	f.cut = nil
	other := f.come("other", "192.0.2.3:1")
	f.crowd.changed(other, http.StateActive)
	f.crowd.changed(honest, http.StateActive)
	f.cut = nil
	f.crowd.changed(honest, http.StateIdle)
	f.crowd.changed(other, http.StateIdle)
	if want := []string{"honest"}; !slices.Equal(f.cut, want) || other.stage != idle {
		t.Errorf("closed are %q, want %q", f.cut, want)
	}
	f.crowd.changed(other, http.StateClosed)
	if n := f.crowd.members[idle].Len(); n != 0 {
		t.Errorf("%d are idle", n)
	}
}

// TestTurns has one source that waits many times and one that waits once.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{crowd: newCrowd(usualLimits(), nil)}
		turns := f.crowd.turns
		turns.free, turns.waiting.Modest = 1, 1
		first := f.come("first", "192.0.2.2:1")
		if !turns.take(first) {
			t.Fatal("no turn")
		}
		var order []string
		wait := func(name, from string) *conn {
			one := f.come(name, from)
			go func() {
				if !turns.take(one) {
					name += " not"
				}
				order = append(order, name)
			}()
			synctest.Wait()
			return one
		}
		all := []*conn{wait("greedy1", "192.0.2.2:1"), wait("greedy2", "192.0.2.2:1"), wait("greedy3", "192.0.2.2:1"), wait("honest", "192.0.2.1:1")}
		gone := wait("gone", "192.0.2.7:1")
		turns.close(gone)
		synctest.Wait()
		for _, next := range []*conn{first, all[3], all[2], all[1], all[0]} {
			turns.give(next)
			turns.give(next)
			synctest.Wait()
		}
		if want := []string{"gone not", "honest", "greedy3", "greedy2", "greedy1"}; !slices.Equal(order, want) {
			t.Errorf("the order was %q, want %q", order, want)
		}
		if turns.free != 1 || turns.waiting.Len() != 0 {
			t.Errorf("%d are free, %d wait", turns.free, turns.waiting.Len())
		}
		if turns.take(gone) {
			t.Error("a closed connection got a turn")
		}
	})
}
