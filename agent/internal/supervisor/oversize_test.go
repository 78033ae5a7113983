package supervisor_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/protocol/wire"
)

// growing is a flow whose insights are as long as their records say.
func (p *plant) growing(trigger, read string) supervisor.Deployment {
	return supervisor.Deployment{
		ID: "a", FlowID: "flow-a", Name: "a", Version: 1, Connections: []connector.Connection{p.fileConnection()},
		Definition: fmt.Appendf(nil, `flow: a
trigger: %s
steps:
  - id: lines
    read: files
    with: {%s}
    schema: {machine: string, n: int}
  - map: {a: 'repeat("x", n)', b: 'repeat("x", n)', c: 'repeat("x", n)', d: 'repeat("x", n)', e: 'repeat("x", n)'}
  - id: out
    insight: seen
    key: [machine]
`, trigger, read),
	}
}

// sizes are the places of the outbox: the bytes of an insight to the nearest million, or why it is gone.
func (p *plant) sizes() string {
	p.t.Helper()
	records, err := p.staging.ReadOutbox(p.t.Context(), 0, 100, 100<<20)
	if err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for _, r := range records {
		for range r.Count {
			if r.Gone == "" {
				out = append(out, strconv.Itoa(len(r.Payload)/1_000_000))
			} else {
				out = append(out, r.Gone)
			}
		}
	}
	return strings.Join(out, " ")
}

func TestInsightsThatAreTooLargeAreReportedAndTheFlowGoesOn(t *testing.T) {
	t.Parallel()
	for _, trigger := range []string{"{every: 1s}", "continuous"} {
		t.Run(trigger, func(t *testing.T) {
			t.Parallel()
			p := newPlantWith(t, func(s *supervisor.Settings) { s.MaxInsight = stage.MaxRecordBytes })
			p.write("a.jsonl", line(200_000)+line(1000_000)+line(1020_000)+line(800_000))
			read := once
			if trigger == "continuous" {
				read = follow
			}
			p.sup.Apply([]supervisor.Deployment{p.growing(trigger, read)})
			p.await("all came", func() bool { return p.sizes() == "1 unsendable unsendable 4" })
			if trigger == "continuous" {
				p.write("a.jsonl", line(980_000)) // a batch of nothing else
				p.await("the next came", func() bool { return p.sizes() == "1 unsendable unsendable 4 unsendable" })
				p.write("a.jsonl", line(400_000))
				p.await("the flow goes on", func() bool { return p.sizes() == "1 unsendable unsendable 4 unsendable 2" })
			}
			want := uint64(2)
			if trigger == "continuous" {
				want = 3
			}
			var failed, ofStep uint64
			var said []*wire.FailedRecord
			p.await("the reports count them", func() bool {
				failed, ofStep, said = 0, 0, nil
				for _, r := range p.reports("a") {
					failed += r.GetRecordsFailed()
					said = append(said, r.GetFailedSample()...)
					for _, s := range r.GetSteps() {
						if s.GetStep() == "out" {
							ofStep += s.GetRowsFailed()
						}
					}
				}
				return failed >= want
			})
			if failed != want || ofStep != want || uint64(len(said)) != want {
				t.Fatalf("%d failed, %d of the step, and %d are described; want %d", failed, ofStep, len(said), want)
			}
			for i, size := range []string{"5000", "5100"} {
				if s := said[i]; s.GetStep() != "out" || !strings.Contains(s.GetReason(), "an insight seen has "+size) || s.GetRecord() != `{"machine":"M1"}` {
					t.Errorf("it says %v", s)
				}
			}
		})
	}
}
