package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/internal/backoff"
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

// How a delivery is tried at which the database fails by a fault that is not that it is away.
const (
	storeTries   = 3
	storeWaitMin = 100 * time.Millisecond
	storeWaitMax = time.Second
)

// StoreInsights inserts what is new and advances the agent's sequence, in one transaction. Where the database fails at it
// again and again, the insights that are to blame are set aside.
func (s *Service) StoreInsights(ctx context.Context, id AgentIdentity, up *wire.InsightsUp) (uint64, error) {
	p, err := parcelOf(up)
	if err != nil {
		return 0, err
	}
	wait := backoff.Backoff{Min: storeWaitMin, Max: storeWaitMax}
	for try := 1; ; try++ {
		stored, err := s.storeParcel(ctx, id, p)
		if err == nil || CodeOf(err) != Internal {
			return stored, err
		}
		if try == storeTries {
			return s.isolate(ctx, id, p, err)
		}
		if wait.Wait(ctx) != nil {
			return 0, err
		}
	}
}

// storeParcel stores what is new of a parcel.
func (s *Service) storeParcel(ctx context.Context, id AgentIdentity, p parcel) (stored uint64, err error) {
	err = s.write(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		st, err := agentState(tx.LockAgent(ctx, id.Agent))
		if err != nil {
			return err
		}
		stored = uint64(st.StoredSeq) //nolint:gosec // never negative
		if p.first > stored+1 {
			return fail(Conflict, "the insights from %d on came, but only those up to %d are stored: the ones between are missing", p.first, stored)
		}
		if p.last() <= stored {
			return nil
		}
		rest := p.behind(stored)
		d := rest.delivery()
		d.Agent, d.Workspace = id.Agent, id.Workspace
		if err := tx.StoreInsights(ctx, d); err != nil {
			return err
		}
		stored = rest.last()
		if err := announce(ctx, tx, d); err != nil || len(d.Receipts) == 0 {
			return err
		}
		return audit(ctx, tx, Actor{Kind: "agent", Ref: id.Agent, Name: st.Name}, object{"agent", id.Agent, st.Name},
			what{"insights_lost", map[string]any{
				"from": rest.first, "to": rest.first + rest.gone() - 1, "insights": rest.gone(), "reasons": d.Receipts,
			}})
	})
	return stored, err
}

// announce tells of a delivery: of the insights, and of the agent when its counts changed.
func announce(ctx context.Context, tx Tx, d Delivery) error {
	if n := len(d.Insights); n > 0 {
		e := Event{Kind: "insights", ID: d.Agent, FromSeq: d.Insights[0].Seq, ToSeq: d.Insights[n-1].Seq}
		if err := tx.Notify(ctx, Notice{Event: e, Workspace: d.Workspace}); err != nil {
			return err
		}
	}
	if len(d.Receipts) == 0 && len(d.Refused) == 0 {
		return nil
	}
	return tx.Notify(ctx, Notice{Event: Event{Kind: "agent", ID: d.Agent}, Workspace: d.Workspace})
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
