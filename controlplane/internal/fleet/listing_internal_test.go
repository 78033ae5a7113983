package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/outfeed/outfeed/protocol/wire"
)

func TestFirstLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ö", 200)
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"the broker refused", "the broker refused"},
		{"the broker refused\n", "the broker refused"},
		{"\r\nthe broker refused\r\n \n", "the broker refused"},
		{"the broker refused\ngoroutine 7 [running]", "the broker refused…"},
		{long, long},
		{long + "x", strings.Repeat("ö", 199) + "…"},
		{long + "\nx", strings.Repeat("ö", 199) + "…"},
		{"\n", ""},
	} {
		got := firstLine(c.in)
		if got != c.want {
			t.Errorf("%q becomes %q, want %q", c.in, got, c.want)
		}
		if again := firstLine(got); again != got {
			t.Errorf("%q becomes %q when it is cut again", got, again)
		}
	}
}

// failingFlows are flows that fail, with the error of a source in their own and more behind it.
func failingFlows(n, size int) []FlowStatus {
	var flows []FlowStatus
	for i := range n {
		why := fmt.Sprintf("dial tcp 10.0.0.%d:1883: connection refused", i%250) + strings.Repeat("x", size)
		flows = append(flows, FlowStatus{
			Deployment: ID(fmt.Sprintf("01950000-0000-7000-8000-%012d", i)), Flow: ID(fmt.Sprintf("01950000-0000-7001-8000-%012d", i)),
			Name: fmt.Sprintf("press-health-%d", i), Version: 3, State: "running", Error: "step readings: " + why + "\nand more", Since: time.Unix(1_700_000_000, 0).UTC(),
			Sources: []SourceStatus{{Step: "readings", Connection: "press-plc", State: "failing", Error: why}, {Step: "orders", Connection: "erp", State: "reading"}},
		})
	}
	return flows
}

// What is short stays as it is, beside its source's.
func TestBriefKeepsWhatIsShort(t *testing.T) {
	t.Parallel()
	s := AgentStatus{Flows: []FlowStatus{{
		State: "running", SetBackFrom: 4, Error: "version 4 was set back; readings: connection refused",
		Sources: []SourceStatus{{Step: "readings", Connection: "press-plc", State: "failing", Error: "connection refused"}, {Step: "orders", State: "reading"}},
	}}}
	if diff := cmp.Diff(s, s.Brief()); diff != "" {
		t.Error(diff)
	}
}

func TestBrief(t *testing.T) {
	t.Parallel()
	s := AgentStatus{
		BundleError: "it is older\nby far", Flows: failingFlows(2, 7000),
		Outbox: OutboxStatus{Produced: 7, Degraded: strings.Repeat("d", 300), Damage: []DamagedFile{{File: "state.db.corrupt-1", Reason: "page 3", Lost: 4, SetBack: []ID{"x"}}}},
	}
	got := s.Brief()
	why := firstLine(s.Flows[0].Sources[0].Error)
	if utf8.RuneCountInString(why) != 200 || !strings.HasPrefix(why, "dial tcp 10.0.0.0:1883: connection refused") {
		t.Fatalf("the source's error becomes %q", why)
	}
	want := s
	want.BundleError = "it is older…"
	want.Outbox.Degraded = strings.Repeat("d", 199) + "…"
	want.Outbox.Damage = []DamagedFile{{File: "state.db.corrupt-1"}}
	want.Flows = failingFlows(2, 7000)
	for i := range want.Flows {
		want.Flows[i].Sources[0].Error = firstLine(want.Flows[i].Sources[0].Error)
		want.Flows[i].Error = want.Flows[i].Sources[0].Error
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(got, got.Brief()); diff != "" {
		t.Errorf("it changes when it is made again:\n%s", diff)
	}
	if s.Flows[0].Sources[0].Error == why || s.Outbox.Damage[0].Reason != "page 3" {
		t.Error("the status itself was cut")
	}
}

// However much an agent says, its brief has a bound, and every flow is there that has a name of a usual length.
func TestBriefIsBounded(t *testing.T) {
	t.Parallel()
	s := AgentStatus{Flows: failingFlows(1000, 7000)}
	got := s.Brief()
	if size := sizeOf(t, got); size > 600<<10 {
		t.Errorf("a thousand flows that fail take %d bytes", size)
	}
	if len(got.Flows) != 1000 || got.FlowsLeftOut != 0 {
		t.Fatalf("of 1000 flows there are %d, and %d are left out", len(got.Flows), got.FlowsLeftOut)
	}
	for i, f := range got.Flows {
		if f.Error == "" || f.Name == "" || len(f.Sources) == 0 || f.Sources[0].State != "failing" || f.Sources[0].Connection != "press-plc" {
			t.Fatalf("flow %d does not say that and where it fails: %+v", i, f)
		}
	}
	hostile := strings.Repeat("\x1b", 200)
	for i := range s.Flows {
		f := &s.Flows[i]
		f.Deployment, f.Flow, f.Name, f.State = ID(hostile), ID(hostile), hostile, hostile
		for range 10 {
			f.Sources = append(f.Sources, SourceStatus{Step: hostile, Connection: hostile, State: hostile, Error: hostile})
		}
	}
	got = s.Brief()
	if size := sizeOf(t, got); size > 2*briefFlows {
		t.Errorf("a hostile agent's takes %d bytes", size)
	}
	if got.FlowsLeftOut == 0 || len(got.Flows)+got.FlowsLeftOut != 1000 {
		t.Errorf("there are %d flows, and %d are left out", len(got.Flows), got.FlowsLeftOut)
	}
	if again := got.Brief(); again.FlowsLeftOut+len(again.Flows) != 1000 {
		t.Errorf("made again there are %d flows, and %d are left out", len(again.Flows), again.FlowsLeftOut)
	}
}

func sizeOf(t *testing.T, s AgentStatus) int {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return len(text)
}

func FuzzAgentCursor(f *testing.F) {
	f.Add((&Agent{Name: "press-pc", ID: "01950000-0000-7000-8000-000000000010"}).Cursor())
	f.Add((&Agent{Name: "ö\x00", ID: "01950000-0000-7000-8000-000000000010", Revoked: time.Unix(1, 0)}).Cursor())
	f.Add("e30")
	f.Add("…")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseAgentCursor(text)
		if err != nil {
			if CodeOf(err) != Invalid {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if !isID(c.ID) || strings.Contains(c.Name, "\x00") {
			t.Errorf("%q passes as %+v", text, c)
		}
	})
}

// The name of an agent comes from its host's, and can be shown anywhere.
func TestHostsAreVisible(t *testing.T) {
	t.Parallel()
	got := hostInfo(&wire.Host{Hostname: "öl-1\x1b[31m\u009b\u202e\n", Os: "li\tnux", Arch: "\x00", AgentVersion: "v1\u2028"})
	want := HostInfo{Hostname: "öl-1\ufffd[31m\ufffd\ufffd\ufffd", OS: "li\ufffdnux", Arch: "\ufffd", Version: "v1\ufffd"}
	if got != want {
		t.Errorf("the host is %+v", got)
	}
}
