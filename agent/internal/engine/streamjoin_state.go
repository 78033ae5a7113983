package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// The keys of a stream join's entries begin with the side, and the row's number follows, so that they sort as the rows came.
const (
	leftPrefix  = 'l'
	rightPrefix = 'r'
)

// streamState is what a join of two streams tells the store: an entry for each row that it holds, and one for the times.
type streamState struct {
	join        *streamJoin
	fingerprint [fingerprintSz]byte
	removed     []StateChange
	// metaSaved is the meta entry of the last checkpoint.
	metaSaved string
	ended     bool
}

func (s *streamState) init(j *streamJoin, left, right expr.Schema) {
	s.join = j
	text := fmt.Sprintf("stream join %t %d times %d %d keys %s = %s; left %s right %s", j.outer, j.within,
		j.sides[leftSide].time, j.sides[rightSide].time, columnsOf(left, j.plan.JoinLeft), columnsOf(right, j.plan.JoinRight),
		columnsOf(left, j.sides[leftSide].cols), columnsOf(right, j.sides[rightSide].cols))
	sum := sha256.Sum256([]byte(text))
	copy(s.fingerprint[:], sum[:])
}

func rowKey(side int, seq uint64) string {
	prefix := byte(leftPrefix)
	if side == rightSide {
		prefix = rightPrefix
	}
	return string(binary.BigEndian.AppendUint64([]byte{prefix}, seq))
}

func (s *streamState) remove(side int, seq uint64) {
	s.removed = append(s.removed, StateChange{Step: s.join.plan.ID, Key: rowKey(side, seq)})
}

// discard notes that all entries are to be removed.
func (s *streamState) discard(entries map[string][]byte) {
	s.removed = append(s.removed, discardAll(s.join.plan.ID, entries)...)
}

// changes appends what changed since the last call.
func (s *streamState) changes(dst []StateChange) []StateChange {
	dst = append(dst, s.removed...)
	s.removed = s.removed[:0]
	for side, rows := range s.join.sides {
		for row, changed := range rows.changed {
			// That a row of the right side, or of an inner join, has found a partner changes nothing for it.
			if !changed || rows.saved[row] && (side == rightSide || !s.join.outer) {
				continue
			}
			rows.changed[row], rows.saved[row] = false, true
			key := rowKey(side, rows.seq[row])
			value := putBool(putInt([]byte{stateVersion}, rows.times[row]), rows.matched[row])
			for i := range s.join.table.cols {
				value = putCell(value, &s.join.table.cols[i], int(rows.entry[row]))
			}
			for i := range rows.rows {
				value = putCell(value, &rows.rows[i], row)
			}
			dst = append(dst, StateChange{Step: s.join.plan.ID, Key: key, Value: seal(value, []byte(key))})
		}
	}
	return s.metaChange(dst)
}

func (s *streamState) metaChange(dst []StateChange) []StateChange {
	step := s.join.plan.ID
	if s.ended {
		if s.metaSaved != "" {
			s.metaSaved = ""
			dst = append(dst, StateChange{Step: step, Key: metaKey})
		}
		return dst
	}
	value := append([]byte{stateVersion}, s.fingerprint[:]...)
	value = putInt(value, s.join.counts.lateTotal)
	for _, side := range s.join.sides {
		value = putWord(putInt(putBool(value, side.seen), side.newest), side.nextSeq)
	}
	value = seal(value, []byte(metaKey))
	if string(value) == s.metaSaved {
		return dst
	}
	s.metaSaved = string(value)
	return append(dst, StateChange{Step: step, Key: metaKey, Value: value})
}

// restore reads the entries of the last checkpoint into a join that has seen nothing. errOtherDefinition means that they
// are of another definition, and then nothing was read.
func (s *streamState) restore(entries map[string][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	if err := s.restoreMeta(entries[metaKey]); err != nil {
		return err
	}
	return restoreEntries(entries, s.restoreRow)
}

func (s *streamState) restoreMeta(value []byte) error {
	payload, err := unseal(metaKey, value)
	if err != nil {
		return err
	}
	r := reader{s: payload}
	if string(r.take(fingerprintSz)) != string(s.fingerprint[:]) {
		return errOtherDefinition
	}
	late := r.int()
	for _, side := range s.join.sides {
		side.seen, side.newest, side.nextSeq = r.bool(), r.int(), r.word()
	}
	if r.err != nil || len(r.s) > 0 {
		return errCorruptState
	}
	s.join.counts.lateTotal, s.metaSaved = late, string(value)
	return nil
}

func (s *streamState) restoreRow(key string, payload []byte) error {
	j := s.join
	if len(key) != 9 || key[0] != leftPrefix && key[0] != rightPrefix {
		return errCorruptState
	}
	side := leftSide
	if key[0] == rightPrefix {
		side = rightSide
	}
	seq := binary.BigEndian.Uint64([]byte(key[1:]))
	rows := j.sides[side]
	r := reader{s: payload}
	time, matched := r.int(), r.bool()
	entry, err := s.readKey(&r)
	if err != nil {
		return err
	}
	for i := range rows.rows {
		if r.cell(&rows.rows[i]); r.err != nil {
			return errCorruptState
		}
	}
	if len(r.s) > 0 || seq >= rows.nextSeq {
		return errCorruptState
	}
	for _, other := range j.sides {
		other.head, other.tail = growTo(other.head, j.table.len()), growTo(other.tail, j.table.len())
	}
	row := rows.append(entry, time, seq)
	rows.matched[row], rows.saved[row], rows.changed[row] = matched, true, false
	rows.link(row)
	if j.span == endless {
		rows.due.push(due{time, row})
	}
	j.live++
	j.bytes += rows.textOf(row)
	return nil
}

// readKey reads the key of a row, which has no nulls, and gives its entry.
func (s *streamState) readKey(r *reader) (entry int32, err error) {
	keys := make([]column.Column, len(s.join.table.cols))
	for i := range keys {
		keys[i].Type = s.join.table.cols[i].Type
		if r.cell(&keys[i]); r.err != nil || keys[i].Null(0) {
			return 0, errCorruptState
		}
	}
	if entry, err = oneKey(s.join.table, 0, keys); err != nil {
		return 0, errCorruptState
	}
	return entry, nil
}
