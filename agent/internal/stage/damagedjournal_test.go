package stage_test

import (
	"bytes"
	"encoding/binary"
)

// staged is a commit of the sample: its flow and number, and the last sequence behind it.
type staged struct {
	flow         string
	number, last uint64
}

// journalFrame is a frame of the journal: where it is, and the last sequence in front of it.
type journalFrame struct {
	start, end int
	base       uint64
}

// journalFrames gives the frames of the newest epoch, and what their checksums begin with.
func journalFrames(b []byte) (frames []journalFrame, seed uint64) {
	id, epoch := binary.LittleEndian.Uint64(b[20:]), uint64(0)
	const block = 4096
	for at := block; at < len(b); at += block {
		size, e := int(binary.LittleEndian.Uint32(b[at:])), binary.LittleEndian.Uint64(b[at+24:])
		number, base := binary.LittleEndian.Uint64(b[at+16:]), binary.LittleEndian.Uint64(b[at+32:])
		if number == 1 && at == block {
			epoch = e
		}
		if e != epoch || number != uint64(len(frames))+1 {
			continue
		}
		frames = append(frames, journalFrame{start: at, end: at + size, base: base})
	}
	x := id + epoch*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return frames, x ^ x>>31
}

// proven says how many of the commits are proven by frames that damage has left, and up to which sequence.
func (sm *sample) proven(after []byte) (commits int, last uint64) {
	before := sm.files["JOURNAL"]
	frames, _ := journalFrames(before)
	last = frames[0].base
	for i, f := range frames {
		if f.end <= len(after) && bytes.Equal(before[f.start:f.end], after[f.start:f.end]) {
			last = uint64(len(sm.payloads))
			if i+1 < len(frames) {
				last = frames[i+1].base
			}
		}
	}
	for commits < len(sm.history) && sm.history[commits].last <= last {
		commits++
	}
	return commits, last
}
