package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

// The bounds of one insight.
const (
	// longestInsight is the largest record in bytes; agents make none that is larger.
	longestInsight = 4 << 20
	// deepestJSON is how deep objects and arrays may nest: far less than what makes PostgreSQL give up.
	deepestJSON = 500
	// keptRecord is how much is kept of a record that is refused, in bytes.
	keptRecord = 64 << 10
)

// StoreInsights inserts what is new and advances the agent's sequence, in one transaction.
func (s *Service) StoreInsights(ctx context.Context, id AgentIdentity, up *wire.InsightsUp) (uint64, error) {
	first, n := up.GetFirstSeq(), uint64(len(up.GetInsights()))
	if first == 0 || first > math.MaxInt64-n {
		return 0, fail(Invalid, "the agent numbers its insights from %d, which cannot be: update outfeed-agent", first)
	}
	records := received(up)
	var stored uint64
	err := s.write(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		st, err := agentState(tx.LockAgent(ctx, id.Agent))
		if err != nil {
			return err
		}
		stored = uint64(st.StoredSeq) //nolint:gosec // never negative
		known, gone := overlap(stored, first)
		if gone > 0 && gone != up.GetLostBefore() {
			return fail(Conflict, "the insights from %d on came, but only those up to %d are stored: the ones between are missing", first, stored)
		}
		if gone == 0 && known >= n {
			return nil
		}
		d := sorted(records[known:])
		d.Agent, d.Workspace, d.Last = id.Agent, id.Workspace, int64(first+n-1) //nolint:gosec // bounded above
		d.Lost += int64(gone)                                                   //nolint:gosec // below first
		if err := tx.StoreInsights(ctx, d); err != nil {
			return err
		}
		from := stored + 1
		stored = first + n - 1
		if err := announce(ctx, tx, d); err != nil || gone == 0 {
			return err
		}
		return audit(ctx, tx, Actor{Kind: "agent", Ref: id.Agent, Name: st.Name}, object{"agent", id.Agent, st.Name},
			what{"insights_lost", map[string]any{"from": from, "to": first - 1, "insights": gone}})
	})
	return stored, err
}

// overlap says how many insights of a delivery from a sequence on are stored already, or how many are missing before it.
func overlap(stored, first uint64) (known, missing uint64) {
	if first > stored {
		return 0, first - stored - 1
	}
	return stored + 1 - first, 0
}

// announce tells of a delivery: of the insights, and of the agent when its counts changed.
func announce(ctx context.Context, tx Tx, d Delivery) error {
	if n := len(d.Insights); n > 0 {
		e := Event{Kind: "insights", ID: d.Agent, FromSeq: d.Insights[0].Seq, ToSeq: d.Insights[n-1].Seq}
		if err := tx.Notify(ctx, Notice{Event: e, Workspace: d.Workspace}); err != nil {
			return err
		}
	}
	if d.Lost == 0 && len(d.Refused) == 0 {
		return nil
	}
	return tx.Notify(ctx, Notice{Event: Event{Kind: "agent", ID: d.Agent}, Workspace: d.Workspace})
}

// record is one record of a delivery as it was read.
type record struct {
	insight Insight
	// refused is set for one that can never be stored, lost for the empty one that stands for a damaged one.
	refused *RefusedInsight
	lost    bool
}

// received reads the records of a delivery.
func received(up *wire.InsightsUp) []record {
	out := make([]record, len(up.GetInsights()))
	for i, r := range up.GetInsights() {
		seq := int64(up.GetFirstSeq()) + int64(i) //nolint:gosec // the caller has bounded it
		if proto.Size(r) == 0 {
			out[i].lost = true
			continue
		}
		in, reason := insightOf(r)
		if reason != "" {
			out[i].refused = &RefusedInsight{Seq: seq, Reason: reason, Record: beginningOf(r)}
			continue
		}
		in.Seq = seq
		out[i].insight = in
	}
	return out
}

// sorted puts records where they belong.
func sorted(records []record) Delivery {
	var d Delivery
	for i := range records {
		switch r := &records[i]; {
		case r.lost:
			d.Lost++
		case r.refused != nil:
			d.Refused = append(d.Refused, *r.refused)
		default:
			d.Insights = append(d.Insights, r.insight)
		}
	}
	return d
}

// beginningOf is as much of a record as is kept of a refused one.
func beginningOf(r *wire.InsightRecord) []byte {
	encoded, err := proto.Marshal(r)
	if err != nil {
		// Only texts that are not UTF-8 do that, which no decoder lets through. What matters most is kept.
		encoded = r.GetValuesJson()
	}
	return encoded[:min(len(encoded), keptRecord)]
}

// insightOf reads an insight, and says why it can never be stored; nothing when it can.
func insightOf(r *wire.InsightRecord) (in Insight, reason string) {
	if size := proto.Size(r); size > longestInsight {
		return in, fmt.Sprintf("it has %d bytes; at most %d are stored", size, longestInsight)
	}
	in = Insight{
		Flow: ID(r.GetFlowId()), Version: int(min(r.GetFlowVersion(), math.MaxInt32)), Name: clean(r.GetName(), longestEntry),
		Time: timeOf(r.GetTime()), Key: storableJSON(r.GetKeyJson()), Values: storableJSON(r.GetValuesJson()),
	}
	switch {
	case !isID(in.Flow):
		return in, fmt.Sprintf("its flow id %q is no UUID", clean(r.GetFlowId(), longestEntry))
	case in.Name == "":
		return in, "it has no name"
	case !isObject(in.Key):
		return in, "its key is no JSON object"
	case !isObject(in.Values):
		return in, "its values are no JSON object"
	case depth(in.Key) > deepestJSON || depth(in.Values) > deepestJSON:
		return in, fmt.Sprintf("its JSON nests deeper than %d", deepestJSON)
	}
	return in, ""
}

func isObject(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{' && json.Valid(b)
}

// depth is how deep the objects and arrays of a valid JSON text nest.
func depth(b []byte) int {
	deepest, now := 0, 0
	inText := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inText && c == '\\':
			i++ // what is escaped ends no text
		case c == '"':
			inText = !inText
		case inText:
		case c == '{', c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}', c == ']':
			now--
		}
	}
	return deepest
}

// storableJSON replaces what JSON can say and PostgreSQL cannot read back: the escape of NUL and escaped halves of
// surrogate pairs. Without it one record would be refused for ever, and hold up all that come after it.
func storableJSON(b []byte) []byte {
	if !bytes.Contains(b, []byte(`\u0000`)) && !bytes.Contains(b, []byte(`\ud`)) && !bytes.Contains(b, []byte(`\uD`)) {
		return bytes.ToValidUTF8(b, []byte("\ufffd"))
	}
	out := bytes.Clone(b)
	for i := 0; i+1 < len(out); i++ {
		if out[i] != '\\' {
			continue
		}
		unit, ok := escapedUnit(out[i:])
		switch {
		case !ok:
			i++ // the escaped character is no backslash of its own
		case unit == 0, unit >= 0xdc00 && unit <= 0xdfff:
			copy(out[i+2:], "fffd")
			i += 5
		case unit >= 0xd800 && unit <= 0xdbff:
			if low, ok := escapedUnit(out[i+6:]); ok && low >= 0xdc00 && low <= 0xdfff {
				i += 11
				continue
			}
			copy(out[i+2:], "fffd")
			i += 5
		default:
			i += 5
		}
	}
	return bytes.ToValidUTF8(out, []byte("\ufffd"))
}

// escapedUnit reads a \uXXXX.
func escapedUnit(b []byte) (unit uint16, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		unit <<= 4
		switch {
		case c >= '0' && c <= '9':
			unit |= uint16(c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			unit |= uint16(c|0x20-'a') + 10
		default:
			return 0, false
		}
	}
	return unit, true
}
