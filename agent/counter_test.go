package agent

import (
	"errors"
	"syscall"
	"testing"
)

// disk is an identity on a disk that can be full.
type disk struct {
	counter      uint64
	full         bool
	writes, room int
}

func (d *disk) NextCounter() (uint64, error) {
	if d.full {
		return 0, syscall.ENOSPC
	}
	d.writes++
	d.counter++
	return d.counter, nil
}

func (d *disk) free() bool {
	if d.room == 0 {
		return false
	}
	d.room--
	d.full = false
	return true
}

func TestTheConnectCounterRisesThroughAFullDisk(t *testing.T) {
	t.Parallel()
	d := &disk{}
	c := &counters{identity: d, spare: d.free}
	last := uint64(0)
	next := func() {
		t.Helper()
		n, err := c.NextCounter()
		if err != nil || n <= last {
			t.Fatalf("%d, %v follows %d", n, err, last)
		}
		last = n
	}
	next()
	d.writes = 0
	next()
	if d.writes != 1 {
		t.Errorf("a connection writes %d times", d.writes)
	}
	d.full = true
	for range counterAhead {
		next()
	}
	if _, err := c.NextCounter(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("with nothing left it gives %v", err)
	}
	d.room = 1
	next()
	// A restart begins behind what is on the disk.
	d.full = false
	c = &counters{identity: d, spare: d.free}
	next()
}
