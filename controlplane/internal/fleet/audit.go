package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
)

// AuditEntry is one change of a tenant, as its audit log keeps it.
type AuditEntry struct {
	// Seq counts from one without a gap. Seq, At, Previous and Hash are the store's to fill in.
	Seq int64
	At  time.Time
	// ActorKind, ActorRef and ActorName say who did it.
	ActorKind string
	ActorRef  ID
	ActorName string
	// Action is "<object>.<verb>", like "flow.deploy".
	Action string
	// ObjectKind, ObjectID and ObjectName say to what.
	ObjectKind string
	ObjectID   ID
	ObjectName string
	// Detail is a JSON object without secrets.
	Detail string
	// Previous is the hash of the entry before, empty for the first; Hash is this one's.
	Previous, Hash []byte
}

// ComputeHash is the SHA-256 of the previous hash and of every field, each preceded by its length in eight bytes
// (big-endian), so that no two entries have the same bytes. The time counts in microseconds since 1970.
func (e *AuditEntry) ComputeHash(tenant ID) []byte {
	h := sha256.New()
	put := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	number := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) } //nolint:gosec // the bits are what is hashed
	put([]byte("outfeed-audit-v1"))
	put(e.Previous)
	put([]byte(tenant))
	put(number(e.Seq))
	put(number(e.At.UnixMicro()))
	for _, s := range []string{
		e.ActorKind, string(e.ActorRef), e.ActorName, e.Action, e.ObjectKind, string(e.ObjectID), e.ObjectName, e.Detail,
	} {
		put([]byte(s))
	}
	return h.Sum(nil)
}

// AuditReport is what verifying an audit log found.
type AuditReport struct {
	// Entries is how many entries were read and fit.
	Entries int64
	// Head is the hash of the newest entry, to be kept elsewhere.
	Head []byte
	// Broken says what is wrong with the first entry that does not fit; empty when all fit.
	Broken string
}

// auditPage is how many entries are read at a time.
const auditPage = 1000

// Audit lists entries of the tenant's audit log in their order, after a sequence; at most 1000.
func (s *Service) Audit(ctx context.Context, a Actor, after int64) ([]AuditEntry, error) {
	if err := require(a, Owner); err != nil {
		return nil, err
	}
	var out []AuditEntry
	err := s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		out, err = tx.AuditEntries(ctx, after, auditPage)
		return err
	})
	return out, err
}

// VerifyAudit reads the tenant's whole audit log and checks that nothing was altered, removed or put in between.
func (s *Service) VerifyAudit(ctx context.Context, a Actor) (AuditReport, error) {
	if err := require(a, Viewer); err != nil {
		return AuditReport{}, err
	}
	var rep AuditReport
	err := s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		rep = AuditReport{}
		seq, head, err := tx.AuditHead(ctx)
		if err != nil {
			return err
		}
		for rep.Entries < seq {
			page, err := tx.AuditEntries(ctx, rep.Entries, auditPage)
			if err != nil {
				return err
			}
			if rep.Broken = rep.follow(a.Tenant, page); rep.Broken != "" || len(page) == 0 {
				break
			}
		}
		switch {
		case rep.Broken != "":
		case rep.Entries != seq:
			rep.Broken = fmt.Sprintf("the log ends at entry %d, but %d were written: the newest were removed", rep.Entries, seq)
		case !bytes.Equal(rep.Head, head):
			rep.Broken = fmt.Sprintf("entry %d is not the one that was written last", seq)
		}
		return nil
	})
	return rep, err
}

// follow checks that entries continue the chain, and says what is wrong with the first that does not.
func (r *AuditReport) follow(tenant ID, page []AuditEntry) string {
	for i := range page {
		e := &page[i]
		switch {
		case e.Seq != r.Entries+1:
			return fmt.Sprintf("entry %d is missing", r.Entries+1)
		case !bytes.Equal(e.Previous, r.Head):
			return fmt.Sprintf("entry %d does not follow from the one before", e.Seq)
		case !bytes.Equal(e.ComputeHash(tenant), e.Hash):
			return fmt.Sprintf("entry %d was altered after it was written", e.Seq)
		}
		r.Entries, r.Head = e.Seq, e.Hash
	}
	return ""
}

// object is what an audited change was done to.
type object struct {
	kind string
	id   ID
	name string
}

// what is what was done to it: a verb, and what people should know about it, without secrets.
type what struct {
	verb   string
	detail map[string]any
}

// audit writes an entry for what an actor did. The action is the object's kind and the verb.
func audit(ctx context.Context, tx Tx, a Actor, o object, w what) error {
	if w.detail == nil {
		w.detail = map[string]any{}
	}
	text, err := json.Marshal(w.detail)
	if err != nil {
		return fmt.Errorf("write the detail of an audit entry: %w", err)
	}
	return tx.Audit(ctx, AuditEntry{
		ActorKind: a.Kind, ActorRef: a.Ref, ActorName: a.Name, Action: o.kind + "." + w.verb,
		ObjectKind: o.kind, ObjectID: o.id, ObjectName: o.name, Detail: string(text),
	})
}
