package e2e

import (
	"encoding/json"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// rawFlow makes one insight of each message, windowFlow one of each ten seconds of event time.
const rawFlow = `
flow: raw
trigger: continuous
steps:
  - read: press
    with: {topic: plant/press/+/state, format: json}
    schema: {ts: timestamp, machine: string, n: int}
  - insight: raw
    key: [machine]
`

const windowFlow = `
flow: windows
trigger: continuous
steps:
  - read: press
    with: {topic: plant/press/+/state, format: json}
    schema: {ts: timestamp, machine: string, n: int}
  - aggregate: {messages: count(), total: sum(n)}
    by: [machine]
    window: {tumbling: 10s, time: ts, late: 1s}
  - insight: per_ten_seconds
    key: [machine]
`

// origin is the event time of the first message; each next one is a tenth of a second later.
var origin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func message(n int) string {
	return fmt.Sprintf(`{"ts":%q,"machine":"P%d","n":%d}`, origin.Add(time.Duration(n)*100*time.Millisecond).Format(time.RFC3339Nano), n%2, n)
}

// kill sends a signal to a process, or to a group of them when pid is negative.
func kill(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// waitRunning waits until that many flows of the agent are running.
func (s *site) waitRunning(want int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d flows are running", want), func() error {
		st := s.agentStatus()
		n := 0
		for _, f := range st.Flows {
			if f.State == "running" {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("the agent says %+v", st)
		}
		return nil
	})
}

// agentStatus is what outfeed-agent status says on the machine.
type agentStatus struct {
	// Refused is why the command failed; the rest is empty then.
	Refused string `json:"-"`
	Flows   []struct {
		Name    string `json:"name"`
		State   string `json:"state"`
		Error   string `json:"error"`
		Sources []struct {
			State string `json:"state"`
			Error string `json:"error"`
		} `json:"sources"`
	} `json:"flows"`
	Outbox struct {
		Produced     uint64 `json:"produced"`
		Acknowledged uint64 `json:"acknowledged"`
		Waiting      uint64 `json:"waiting_records"`
		WaitingBytes uint64 `json:"waiting_bytes"`
		Lost         uint64 `json:"lost"`
		LostRemotely uint64 `json:"lost_remotely"`
		Degraded     string `json:"degraded"`
	} `json:"outbox"`
	Tunnel struct {
		Connected bool   `json:"connected"`
		Error     string `json:"error"`
	} `json:"tunnel"`
}

func (s *site) agentStatus() agentStatus {
	s.t.Helper()
	var st agentStatus
	out, said, err := s.try(s.agentEnv(), nil, s.bin("outfeed-agent"), "status", "--json")
	if err != nil {
		st.Refused = fmt.Sprintf("%v: %s", err, said)
		return st
	}
	if err := json.Unmarshal(out, &st); err != nil {
		s.t.Fatalf("status printed %s: %v", out, err)
	}
	return st
}
