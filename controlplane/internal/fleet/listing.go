package fleet

import (
	"context"
	"strings"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// The sizes of a page of agents.
const (
	usualAgents = 500
	mostAgents  = 1000
)

// The bounds of what a list shows of an agent's status, in bytes but for shortText.
const (
	// shortText is the length of a text in characters, with the mark of a cut.
	shortText = 200
	// shortWord is the longest state, and shortID the longest id.
	shortWord = 40
	shortID   = 36
	// briefTexts is for the errors and sources of all flows together; behind it a source is shown only where it fails.
	briefTexts = 192 << 10
	// briefFlows is for all flows together. Only who writes names and states on purpose needs as much.
	briefFlows = 512 << 10
	// flowSize and sourceSize are about what a flow and a source have beside their texts.
	flowSize, sourceSize = 200, 100
)

// AgentFilter selects a page of agents.
type AgentFilter struct {
	// Limit is at most 1000; 0 means 500. A page has fewer where agents say much.
	Limit int
	// After continues a listing: the Next of the page before.
	After string
}

// AgentPage is one page of a listing of agents. Of each it has the AgentStatus.Brief, and of its connectors the kind.
type AgentPage struct {
	Agents []Agent
	// Next is the AgentFilter.After of the next page; empty when there is none.
	Next string
}

// AgentCursor is a place in a listing of agents.
type AgentCursor struct {
	Revoked bool   `json:"r,omitempty"`
	Name    string `json:"n"`
	ID      ID     `json:"a"`
}

// Agents lists the workspace's agents: those that are not revoked by name, then the revoked ones.
func (s *Service) Agents(ctx context.Context, a Actor, f AgentFilter) (AgentPage, error) {
	if err := require(a, Viewer); err != nil {
		return AgentPage{}, err
	}
	n, err := limit(f.Limit, usualAgents, mostAgents)
	if err != nil {
		return AgentPage{}, err
	}
	var after *AgentCursor
	if f.After != "" {
		if after, err = parseAgentCursor(f.After); err != nil {
			return AgentPage{}, err
		}
	}
	var p AgentPage
	more := false
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		if p.Agents, more, err = tx.Agents(ctx, a.Workspace, after, n); err != nil {
			return err
		}
		page := make([]*Agent, len(p.Agents))
		for i := range p.Agents {
			page[i] = &p.Agents[i]
		}
		return noteTooLarge(ctx, tx, a.Workspace, page...)
	})
	if err != nil {
		return AgentPage{}, err
	}
	if more {
		p.Next = p.Agents[len(p.Agents)-1].Cursor()
	}
	return p, nil
}

// BriefAgent finds an agent by id or name, and gives as much of it as Agents does.
func (s *Service) BriefAgent(ctx context.Context, a Actor, ref string) (out Agent, err error) {
	if err := require(a, Viewer); err != nil {
		return Agent{}, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		if out, err = tx.BriefAgent(ctx, a.Workspace, ref); err != nil {
			return found(err, "agent", ref)
		}
		return noteTooLarge(ctx, tx, a.Workspace, &out)
	})
	return out, err
}

// Cursor is the place of an agent in a listing, for AgentFilter.After.
func (g *Agent) Cursor() string {
	return writeCursor(AgentCursor{Revoked: !g.Revoked.IsZero(), Name: g.Name, ID: g.ID})
}

func parseAgentCursor(text string) (*AgentCursor, error) {
	c, err := readCursor(text, func(c AgentCursor) bool { return isID(c.ID) && !hasNUL(c.Name) })
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// Brief is the status as lists show it: its texts are cut to the beginning of their first line, and damaged files have no
// more than name and time. Each flow still says whether it fails, and why in short. Of what is brief already it gives the
// same.
func (s AgentStatus) Brief() AgentStatus { //nolint:gocritic // a copy is what is wanted
	out := s
	out.BundleError = firstLine(s.BundleError)
	out.Outbox.Degraded, out.Outbox.BlockedBy = firstLine(s.Outbox.Degraded), firstLine(s.Outbox.BlockedBy)
	out.Outbox.Damage = nil
	for i := range s.Outbox.Damage {
		out.Outbox.Damage = append(out.Outbox.Damage, DamagedFile{File: s.Outbox.Damage[i].File, At: s.Outbox.Damage[i].At})
	}
	out.Flows = make([]FlowStatus, 0, len(s.Flows))
	texts, all := briefTexts, briefFlows
	for i := range s.Flows {
		f := s.Flows[i].brief(&texts)
		if all -= f.size(); all < 0 {
			out.FlowsLeftOut += len(s.Flows) - i
			break
		}
		out.Flows = append(out.Flows, f)
	}
	return out
}

// brief takes from room what its texts and sources need.
func (f *FlowStatus) brief(room *int) FlowStatus {
	out := *f
	out.Deployment, out.Flow, out.State = ID(excerpt.Bytes(string(f.Deployment), shortID)), ID(excerpt.Bytes(string(f.Flow), shortID)), excerpt.Bytes(f.State, shortWord)
	out.Error, out.Sources = firstLine(f.Error), []SourceStatus{}
	for _, src := range f.Sources {
		if why := firstLine(src.Error); why != "" && strings.Contains(f.Error, src.Error) && !strings.Contains(out.Error, why) {
			// So that whoever compares them still sees that it is the source's.
			out.Error = why
			break
		}
	}
	need := len(out.Error)
	for _, src := range f.Sources {
		src.State, src.Error = excerpt.Bytes(src.State, shortWord), firstLine(src.Error)
		out.Sources = append(out.Sources, src)
		need += src.size()
	}
	if *room -= need; *room >= 0 {
		return out
	}
	*room = 0
	if out.Error != "" {
		out.Error = excerpt.Mark
	}
	for _, src := range out.Sources {
		if src.State == sourceFails {
			src.Error = ""
			out.Sources = []SourceStatus{src}
			return out
		}
	}
	out.Sources = []SourceStatus{}
	return out
}

// sourceFails is the state of a source that does not work.
const sourceFails = "failing"

func (f *FlowStatus) size() int {
	n := flowSize + encoded(f.Name) + encoded(f.Error) + encoded(f.State)
	for i := range f.Sources {
		n += f.Sources[i].size()
	}
	return n
}

func (s *SourceStatus) size() int {
	return sourceSize + encoded(s.Step) + encoded(s.Connection) + encoded(s.State) + encoded(s.Error)
}

// encoded is about how long a text is in JSON: what nobody sees is written as an escape of six.
func encoded(text string) int {
	n := len(text)
	for _, c := range []byte(text) {
		if c < ' ' || c == '<' || c == '>' || c == '&' {
			n += 5
		}
	}
	return n
}

// firstLine is the beginning of a text's first line.
func firstLine(text string) string {
	line, rest, _ := strings.Cut(strings.TrimLeft(text, "\r\n"), "\n")
	line = strings.TrimRight(line, "\r")
	if strings.TrimSpace(rest) != "" {
		line = strings.TrimSuffix(line, excerpt.Mark) + excerpt.Mark
	}
	return excerpt.Runes(line, shortText)
}
