package stage

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"slices"
	"strconv"
)

// voidPrefix begins what lies in the outbox in the place of an insight that is too large; its size follows. Neither a
// message nor a line of text begins with a zero byte.
const voidPrefix = "\x00too large: "

// voidBytes is how large the insight was in whose place this lies, 0 for any other payload.
func voidBytes(payload []byte) uint64 {
	digits, ok := bytes.CutPrefix(payload, []byte(voidPrefix))
	if !ok {
		return 0
	}
	n, _ := strconv.ParseUint(string(digits), 10, 64) // what is no number is none
	return n
}

// fit gives the payload, or what takes its place.
func fit(payload []byte) []byte {
	if len(payload) <= MaxRecordBytes {
		return payload
	}
	return strconv.AppendInt([]byte(voidPrefix), int64(len(payload)), 10)
}

// voidLarge puts something small in the place of every insight that is too large. What the caller has given stays as it is.
func (c *Checkpoint) voidLarge() {
	if earlier := c.Earlier; earlier != nil {
		c.Earlier = fitting(earlier)
	}
	if !slices.ContainsFunc(c.Insights, func(p []byte) bool { return len(p) > MaxRecordBytes }) {
		return
	}
	list := make([][]byte, len(c.Insights))
	for i, p := range c.Insights {
		list[i] = fit(p)
	}
	c.Insights = list
}

func fitting(payloads iter.Seq2[[]byte, error]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for p, err := range payloads {
			if !yield(fit(p), err) {
				return
			}
		}
	}
}

// noteVoids counts the insights of a commit that were too large, as ReadOutbox does when it comes by them.
func (s *Stage) noteVoids(ctx context.Context, c *Checkpoint, lastSeq uint64) {
	if len(c.voids) == 0 {
		return
	}
	seqs := make([]uint64, len(c.voids))
	for i, place := range c.voids {
		seqs[i] = lastSeq - c.count + place
	}
	damaged := map[uint64]string{}
	for _, seq := range seqs {
		damaged[seq] = GoneUnsendable
	}
	s.noteDamaged(damaged)
	s.settings.Logger.ErrorContext(ctx, "insights are too large to be sent: they are set aside and count as lost, and the flow goes on; keep less in them, for example with a select or an aggregate step",
		slog.String("flow", c.Flow), slog.Int("insights", len(seqs)), slog.Uint64("first_seq", seqs[0]),
		slog.Uint64("largest_bytes", c.largest), slog.Int("limit_bytes", MaxRecordBytes))
}
