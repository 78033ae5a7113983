package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// accountFlow makes one insight of each row, and accountWindows one of each ten seconds, so that rows can come too late.
const accountFlow = `
flow: account
trigger: continuous
steps:
  - read: account-files
    with: {path: "rows*.jsonl", format: jsonl, follow: true}
    schema: {ts: timestamp, machine: string, n: int, pad: string, extra: json}
  - insight: account
    key: [machine]
`

const accountWindows = `
flow: account-windows
trigger: continuous
steps:
  - read: account-files
    with: {path: "windows*.jsonl", format: jsonl, follow: true}
    schema: {ts: timestamp, machine: string, n: int}
  - aggregate: {rows: count()}
    by: [machine]
    window: {tumbling: 10s, time: ts, late: 1s}
  - insight: account_windows
    key: [machine]
`

// account is the outbox as outfeed-agent status --json shows it, and, under the same names, the API.
type account struct {
	Produced       uint64            `json:"produced"`
	Sent           uint64            `json:"sent"`
	Acknowledged   uint64            `json:"acknowledged"`
	WaitingRecords uint64            `json:"waiting_records"`
	WaitingBytes   uint64            `json:"waiting_bytes"`
	RoomBytes      uint64            `json:"room_bytes"`
	RunwaySeconds  int64             `json:"runway_seconds"`
	Late           uint64            `json:"late"`
	Expired        map[string]uint64 `json:"expired"`
	Lost           uint64            `json:"lost"`
	LostUnsure     uint64            `json:"lost_unsure"`
	LostRemotely   uint64            `json:"lost_remotely"`
	DamagedFiles   uint64            `json:"damaged_files"`
	Salvaged       uint64            `json:"salvaged"`
	Damage         []damagedFile     `json:"damage"`
	Degraded       string            `json:"degraded"`
	Blocked        uint64            `json:"blocked"`
	BlockedBy      string            `json:"blocked_by"`
}

// damagedFile is a file of the staging that was set aside.
type damagedFile struct {
	File        string   `json:"file"`
	At          string   `json:"at"`
	Reason      string   `json:"reason"`
	Salvaged    uint64   `json:"salvaged"`
	Lost        uint64   `json:"lost"`
	StartedAnew []string `json:"started_anew"`
	SetBack     []string `json:"set_back"`
}

// bookkeeping is the control plane's side of the account.
type bookkeeping struct {
	account
	Accounted uint64            `json:"accounted"`
	Stored    uint64            `json:"stored"`
	Refused   uint64            `json:"refused"`
	Receipts  map[string]uint64 `json:"receipts"`
}

// books is a site whose every insight is accounted for.
type books struct {
	*site
	metrics string
	rows    uint64
	windows int
}

func newBooks(t *testing.T) *books {
	t.Helper()
	b := newBooksOn(t, newControlPlane(t))
	b.apply(accountWindows)
	return b
}

// newBooksOn has an agent of the site run the flow of the account alone.
func newBooksOn(t *testing.T, s *site) *books {
	t.Helper()
	b := &books{site: s, metrics: freeAddress(t)}
	if err := os.MkdirAll(b.path("plant"), 0o750); err != nil {
		t.Fatal(err)
	}
	b.enrol(b.link.address)
	b.run()
	b.waitConnected()
	b.connections(fmt.Sprintf("account-files: {kind: file, root: %q}", b.path("plant")))
	b.apply(accountFlow)
	return b
}

// run starts the agent, with more in its environment.
func (b *books) run(more ...string) {
	b.t.Helper()
	env := append(b.agentEnv(), "OUTFEED_AGENT_LISTEN="+b.metrics)
	b.agent = start(b.t, b.path("agent.log"), append(env, more...), bin(b.t, "outfeed-agent"), "run")
}

// write gives the plant n more rows, each of about 3.5 kB, and one that no control plane takes for each of the odd.
func (b *books) write(n int, odd ...int) {
	b.t.Helper()
	var text strings.Builder
	for i := range n {
		extra := "null"
		if slices.Contains(odd, i) {
			extra = strings.Repeat(`{"a":`, 600) + "1" + strings.Repeat("}", 600)
		}
		fmt.Fprintf(&text, `{"ts":"2026-01-01T00:00:00Z","machine":"M1","n":%d,"pad":"%s%s","extra":%s}`+"\n", b.rows, padOf(b.rows), strings.Repeat("x", 3500), extra)
		b.rows++
	}
	b.appendTo("rows.jsonl", text.String())
}

func padOf(n uint64) string { return fmt.Sprintf("row-%06d-", n) }

func (b *books) appendTo(name, text string) {
	b.t.Helper()
	f, err := os.OpenFile(b.path("plant", name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if closeErr := f.Close(); err != nil || closeErr != nil {
		b.t.Fatal(err, closeErr)
	}
}

// late gives the plant rows of a window that is closed behind one that closes it.
func (b *books) late(n int) {
	b.t.Helper()
	row := func(second int) string {
		return fmt.Sprintf(`{"ts":%q,"machine":"M1","n":1}`+"\n", time.Date(2026, 1, 1, 0, 0, second, 0, time.UTC).Format(time.RFC3339))
	}
	b.windows += 60
	b.appendTo("windows.jsonl", row(b.windows)+row(b.windows+30)+strings.Repeat(row(b.windows-30), n))
}

// account is what the agent says now.
func (b *books) account() account {
	b.t.Helper()
	var st struct {
		Outbox account `json:"outbox"`
	}
	out, said, err := b.try(b.agentEnv(), nil, bin(b.t, "outfeed-agent"), "status", "--json")
	if err != nil {
		b.t.Logf("status: %v: %s", err, said)
		return account{}
	}
	if err := json.Unmarshal(out, &st); err != nil {
		b.t.Fatalf("status printed %s: %v", out, err)
	}
	return st.Outbox
}

// until waits until the agent's account is as wanted, and gives it.
func (b *books) until(what string, wanted func(account) bool) (now account) {
	b.t.Helper()
	b.eventually(what, func() error {
		b.agent.mustLive()
		if now = b.account(); !wanted(now) {
			return fmt.Errorf("the account is %+v", now)
		}
		return nil
	})
	return now
}

// told is what the control plane says of the agent's outbox.
func (b *books) told() (bookkeeping, error) {
	var agent struct {
		Outbox bookkeeping `json:"outbox"`
	}
	err := b.whole(&agent)
	return agent.Outbox, err
}

// measured reads the agent's metrics by name and labels.
func (b *books) measured() map[string]float64 {
	b.t.Helper()
	resp, err := http.Get("http://" + b.metrics + "/metrics") //nolint:noctx // on this machine
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	found := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name, ok := strings.CutPrefix(name, "outfeed_agent_"); ok {
			if found[name], err = strconv.ParseFloat(value, 64); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	return found
}

// damage changes a byte of the records of some rows on the agent's disk.
func (b *books) damage(rows ...uint64) {
	b.t.Helper()
	files, err := filepath.Glob(b.path("agent", "stage", "outbox-*.db"))
	if err != nil || len(files) == 0 {
		b.t.Fatalf("the outbox has the files %q: %v", files, err)
	}
	hit := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, n := range rows {
			needle := []byte(padOf(n))
			hit += bytes.Count(content, needle)
			content = bytes.ReplaceAll(content, needle, bytes.ToUpper(needle))
		}
		if err := os.WriteFile(file, content, 0o600); err != nil { //nolint:gosec // the test's own folder
			b.t.Fatal(err)
		}
	}
	if hit < len(rows) {
		b.t.Fatalf("%d of the rows %v were found on the disk", hit, rows)
	}
}

// TestFaultEveryInsightIsAccountedFor puts insights through everything that may become of them, and compares the figures of
// the agent, the control plane and the metrics with one another and with what was really stored.
func TestFaultEveryInsightIsAccountedFor(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.write(1000)
	b.late(7)
	// The first window of those two rows closes at once.
	first := b.until("what was produced while connected is acknowledged", func(a account) bool {
		return a.Produced == 1001 && a.Acknowledged == 1001 && a.Late == 7
	})
	if first.WaitingRecords != 0 || first.WaitingBytes != 0 || first.Sent != 1001 || first.Lost != 0 {
		t.Errorf("when all is acknowledged the account is %+v", first)
	}

	b.controlPlane.stop()
	waiting := b.produceOffline()

	b.agent.stop()
	b.damage(b.rows-10, b.rows-11, b.rows-12, b.rows-60)
	b.run("OUTFEED_AGENT_STAGING_MAX_BYTES=16MiB", "OUTFEED_AGENT_STAGING_WHEN_FULL=drop_oldest")
	b.write(500)
	expired := b.until("the oldest are dropped for newer ones", func(a account) bool { return a.Produced == waiting.Produced+500 })
	dropped := expired.Expired["expired_bytes"]
	if dropped == 0 || expired.Acknowledged != waiting.Acknowledged || expired.Late != waiting.Late ||
		expired.Produced != expired.Acknowledged+expired.WaitingRecords+dropped {
		t.Errorf("after a restart with less room the account is %+v, and was %+v", expired, waiting)
	}

	b.startControlPlane()
	done := b.until("everything is acknowledged", func(a account) bool { return a.Acknowledged == expired.Produced })
	if done.WaitingRecords != 0 || done.WaitingBytes != 0 || done.Sent != done.Produced || done.Lost != 4 || done.Expired["expired_bytes"] != dropped {
		t.Errorf("when all is acknowledged the account is %+v", done)
	}
	b.compare(done, bookkeeping{Refused: 3, Receipts: map[string]uint64{"damaged": 4, "expired_bytes": dropped}})

	b.agent.kill()
	b.run()
	again := b.until("the agent answers after kill -9", func(a account) bool { return a.Produced > 0 })
	if again.RoomBytes, again.RunwaySeconds = done.RoomBytes, done.RunwaySeconds; fmt.Sprint(again) != fmt.Sprint(done) {
		t.Errorf("after kill -9 the account is %+v, and was %+v", again, done)
	}
}

// produceOffline produces for long enough that the rate is known, and checks what waits and how long there is room.
func (b *books) produceOffline() account {
	b.t.Helper()
	before := b.account()
	began, tick := time.Now(), time.NewTicker(500*time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < 24*time.Second {
		b.write(100)
		<-tick.C
		b.account()
	}
	took := time.Since(began)
	b.write(100, 30, 31, 35)
	b.late(5)
	total := b.rows + 3 // and the windows that have closed: one of the first rows, two of these
	now := b.until("all is produced", func(a account) bool { return a.Produced == total && a.Late == 12 })
	grown := now.WaitingBytes - before.WaitingBytes
	if now.WaitingRecords != now.Produced-now.Acknowledged || now.Acknowledged != before.Acknowledged || now.Sent < now.Acknowledged ||
		now.WaitingBytes < 3500*now.WaitingRecords || now.WaitingBytes > 5000*now.WaitingRecords {
		b.t.Errorf("while the control plane is away the account is %+v", now)
	}
	rate := float64(grown) / took.Seconds()
	want := float64(now.RoomBytes) / rate
	if got := float64(now.RunwaySeconds); got < want/2 || got > want*2 {
		b.t.Errorf("%d bytes came in %s and there is room for %d: the runway is %d s, want about %.0f s", grown, took, now.RoomBytes, now.RunwaySeconds, want)
	}
	b.t.Logf("%d insights wait with %d bytes; room for %.1f days at %.0f bytes/s", now.WaitingRecords, now.WaitingBytes, float64(now.RunwaySeconds)/86400, rate)
	return now
}

// compare checks that the control plane and the metrics tell the same as the agent, and that this is what is stored.
func (b *books) compare(done account, want bookkeeping) {
	b.t.Helper()
	var told bookkeeping
	b.eventually("the control plane has the agent's newest account", func() (err error) {
		if told, err = b.told(); err != nil {
			return err
		}
		// Both change with time alone.
		told.RoomBytes, told.RunwaySeconds = done.RoomBytes, done.RunwaySeconds
		if fmt.Sprint(told.account) != fmt.Sprint(done) {
			return fmt.Errorf("the API says %+v and the agent %+v", told.account, done)
		}
		return nil
	})
	stored := uint64(0)
	for _, name := range []string{"account", "account_windows"} {
		all, err := b.insights(name)
		if err != nil {
			b.t.Fatal(err)
		}
		stored += uint64(len(all))
	}
	sum := stored + told.Refused
	for _, n := range told.Receipts {
		sum += n
	}
	if told.Stored != stored || told.Refused != want.Refused || !maps.Equal(told.Receipts, want.Receipts) || sum != done.Acknowledged || told.Accounted != sum {
		b.t.Errorf("%d insights are stored; the control plane says %+v, want %d refused and the receipts %v", stored, told, want.Refused, want.Receipts)
	}
	var refused struct {
		Items []struct {
			Reason string `json:"reason"`
			Name   string `json:"name"`
		} `json:"items"`
	}
	if err := b.get("/insights/refused", &refused); err != nil || uint64(len(refused.Items)) != want.Refused || want.Refused > 0 && !strings.Contains(refused.Items[0].Reason, "deeper") {
		b.t.Errorf("the refused insights are %+v, %v", refused, err)
	}
	b.compareMissing(want.Receipts)
	m := b.measured()
	for name, n := range map[string]uint64{
		"insights_produced_total": done.Produced, "insights_sent_total": done.Sent, "insights_acknowledged_total": done.Acknowledged,
		`insights_lost_total{where="agent"}`: done.Lost, `insights_lost_total{where="control_plane"}`: done.LostRemotely, "rows_late_total": done.Late,
		`insights_expired_total{rule="age"}`: done.Expired["expired_age"], `insights_expired_total{rule="bytes"}`: done.Expired["expired_bytes"],
		"staging_damaged_files_total": done.DamagedFiles, "insights_salvaged_total": done.Salvaged,
		"outbox_insights": done.WaitingRecords, "outbox_bytes": done.WaitingBytes, "staging_degraded": 0, "staging_blocked_commits": 0,
	} {
		if got, ok := m[name]; !ok || got != float64(n) {
			b.t.Errorf("the metric %s is %v, want %d", name, got, n)
		}
	}
	b.t.Logf("%d produced = %d stored + %d refused + %v", done.Produced, stored, told.Refused, told.Receipts)
}
