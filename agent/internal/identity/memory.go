package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// The file of what an agent remembers from connect to connect: two slots of one block each. A write goes to the slot
// that does not hold what counts, so that a torn one loses nothing, and overwrites what is there, so that a full disk
// does not keep an agent from connecting.
const (
	slots    = 2
	slotSize = 4096
	// maxSession is the longest session value that is kept, in bytes.
	maxSession = 64

	slotMagic = "ofconn01"
	// The offsets in a slot: generation, counter, length of the session value, the value, checksum.
	atGeneration = len(slotMagic)
	atCounter    = atGeneration + 8
	atLength     = atCounter + 8
	atSession    = atLength + 1
	atChecksum   = atSession + maxSession
	slotUsed     = atChecksum + 4
)

// memory is what an agent remembers from connect to connect.
type memory struct {
	// generation rises with every write; the greater of two good slots counts.
	generation uint64
	counter    uint64
	// session is the value of the last Welcome that was kept; empty before the first.
	session []byte
	// slot is where the next write goes: never where what counts is.
	slot int
}

// NextCounter gives a number greater than every one before, which is on disk before it is returned. It is never used
// twice: after a crash, or an error, the next one may skip some. The keys in use are on disk then, too.
func (id *Identity) NextCounter() (uint64, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if err := id.settle(); err != nil {
		return 0, err
	}
	next := id.memory
	if next.counter >= math.MaxInt64 {
		return 0, errors.New("the connect counter has reached its end; enrol this agent again")
	}
	next.counter++
	if err := id.remember(next); err != nil {
		return 0, fmt.Errorf("keep the connect counter, without which this agent cannot connect safely: %w", err)
	}
	return next.counter, nil
}

// Session is the value that KeepSession has kept last; empty before the first.
func (id *Identity) Session() []byte {
	id.mu.Lock()
	defer id.mu.Unlock()
	return slices.Clone(id.memory.session)
}

// KeepSession keeps the session value of a Welcome, which is on disk when it returns without an error. Until then the
// agent must say nothing in that session.
func (id *Identity) KeepSession(value []byte) error {
	if len(value) == 0 || len(value) > maxSession {
		return fmt.Errorf("the control plane sent a session value of %d bytes; 1 to %d are expected", len(value), maxSession)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.memory
	next.session = slices.Clone(value)
	if err := id.remember(next); err != nil {
		return fmt.Errorf("keep the session's value, without which this agent cannot connect again: %w", err)
	}
	return nil
}

// remember writes what shall count. Only a write that is on disk moves on to the other slot: one that failed may have
// got there or not, and until the next try both outcomes must be good. mu is held.
func (id *Identity) remember(next memory) error {
	// A number that was handed to the disk once is not used again, whether it got there or not.
	id.memory.generation++
	next.generation = id.memory.generation
	path := filepath.Join(id.dir, memoryName)
	if err := overwrite(path, encodeSlot(next), int64(next.slot)*slotSize); err != nil {
		return err
	}
	next.slot = (next.slot + 1) % slots
	id.memory = next
	return nil
}

// overwrite changes bytes of a file that exists and writes them to the disk.
func overwrite(path string, content []byte, at int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // the path is made of the configured data directory and a fixed name
	if err != nil {
		return fmt.Errorf("write the agent's identity: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err = f.WriteAt(content, at); err != nil {
		return fmt.Errorf("write the agent's identity: %w", err)
	}
	if err = f.Sync(); err != nil {
		return fmt.Errorf("write %s to the disk: %w", path, err)
	}
	return nil
}

// newMemory is the file of an agent that has never connected. It has its full size from the start.
func newMemory() []byte {
	return append(encodeSlot(memory{generation: 1}), make([]byte, slotSize)...)
}

func encodeSlot(m memory) []byte {
	out := make([]byte, slotSize)
	copy(out, slotMagic)
	binary.BigEndian.PutUint64(out[atGeneration:], m.generation)
	binary.BigEndian.PutUint64(out[atCounter:], m.counter)
	out[atLength] = byte(len(m.session)) //nolint:gosec // at most maxSession
	copy(out[atSession:atChecksum], m.session)
	binary.BigEndian.PutUint32(out[atChecksum:], checksum(out[:atChecksum]))
	return out
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// decodeSlot gives what a slot holds; false when it was never written or is damaged.
func decodeSlot(raw []byte) (memory, bool) {
	if len(raw) < slotUsed || string(raw[:len(slotMagic)]) != slotMagic {
		return memory{}, false
	}
	if binary.BigEndian.Uint32(raw[atChecksum:]) != checksum(raw[:atChecksum]) || int(raw[atLength]) > maxSession {
		return memory{}, false
	}
	return memory{
		generation: binary.BigEndian.Uint64(raw[atGeneration:]),
		counter:    binary.BigEndian.Uint64(raw[atCounter:]),
		session:    slices.Clone(raw[atSession : atSession+int(raw[atLength])]),
	}, true
}

// readMemory reads what counts of the file.
func readMemory(path string) (memory, error) {
	raw, err := readPrivate(path)
	if err != nil {
		return memory{}, err
	}
	m, err := decodeMemory(raw)
	if err != nil {
		// Starting over would look like a copied agent to the control plane, so it is not guessed.
		return memory{}, fmt.Errorf("%s is damaged: %w; restore it from a backup, or remove %s and enrol again", path, err, filepath.Dir(path))
	}
	return m, nil
}

func decodeMemory(raw []byte) (memory, error) {
	if len(raw) != slots*slotSize {
		return memory{}, fmt.Errorf("it has %d bytes and not %d", len(raw), slots*slotSize)
	}
	var best memory
	good := 0
	for i := range slots {
		m, ok := decodeSlot(raw[i*slotSize : (i+1)*slotSize])
		if !ok {
			continue
		}
		good++
		if m.generation > best.generation {
			best = m
			best.slot = (i + 1) % slots
		}
	}
	if good == 0 {
		return memory{}, errors.New("neither of its two copies is whole")
	}
	if good < slots && best.generation > 1 && best.counter < math.MaxInt64 {
		// The other one may have been newer and its counter used, so that number is left out.
		best.counter++
		best.generation++
	}
	return best, nil
}
