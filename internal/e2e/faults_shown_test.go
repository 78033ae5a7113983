package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// compareMissing checks that the ranges of what never came add up to the receipts.
func (b *books) compareMissing(receipts map[string]uint64) {
	b.t.Helper()
	var missing struct {
		Items []struct {
			First    uint64 `json:"first_seq"`
			Last     uint64 `json:"last_seq"`
			Insights uint64 `json:"insights"`
			Reason   string `json:"reason"`
		} `json:"items"`
		Next string `json:"next"`
	}
	if err := b.get("/insights/missing?limit=200", &missing); err != nil || missing.Next != "" {
		b.t.Fatalf("what is missing: %+v, %v", missing, err)
	}
	sums := map[string]uint64{}
	for _, m := range missing.Items {
		if sums[m.Reason] += m.Insights; m.Insights != m.Last-m.First+1 {
			b.t.Errorf("from %d to %d there are %d insights", m.First, m.Last, m.Insights)
		}
	}
	want := maps.Clone(receipts)
	maps.DeleteFunc(want, func(_ string, n uint64) bool { return n == 0 })
	if !maps.Equal(sums, want) {
		b.t.Errorf("the missing ranges add up to %v, and the receipts to %v", sums, want)
	}
}

// look has a real browser look at an agent's page, which must say some texts, at length or with -pictures: a browser takes
// its time. It looks in a wide and in a narrow window, light and dark; the pictures are kept with go test -artifacts.
func (s *site) look(agent, name string, texts ...string) {
	s.t.Helper()
	if !*long && !*pictures {
		return
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*deadline)
	defer cancel()
	args := append([]string{"run", "--silent", "e2e:agent", "--", agent, filepath.Join(s.t.ArtifactDir(), name)}, texts...)
	c := exec.CommandContext(ctx, "npm", args...) //nolint:gosec // a folder of this test
	c.Dir = filepath.Join("..", "..", "controlplane", "internal", "web", "ui")
	c.Env = append(cleanEnv(), "OUTFEED_URL=http://"+s.api, "OUTFEED_API_KEY="+s.apiKey)
	if out, err := c.CombinedOutput(); err != nil {
		s.t.Errorf("a look at the dashboard (it needs: apt-get install chromium; make build): %v\n%s", err, out)
	}
}

// picture looks at an agent's page with -pictures alone, in tests that are about something else, and prints what the agent's
// status and the client say beside it.
func (s *site) picture(agent, name string, texts ...string) {
	s.t.Helper()
	if !*pictures {
		return
	}
	out, said, _ := s.try(s.agentEnv(), nil, bin(s.t, "outfeed-agent"), "status")
	s.t.Logf("%s: the status on the machine:\n%s%s", name, out, said)
	s.t.Logf("%s: the client:\n%s", name, s.outfeed(nil, "agent", "show", agent))
	s.look(agent, name, texts...)
}

// only is the id of the only agent.
func (s *site) only() string {
	s.t.Helper()
	var list struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	if err := s.get("/agents", &list); err != nil || len(list.Items) != 1 {
		s.t.Fatalf("%d agents, %v", len(list.Items), err)
	}
	return list.Items[0].ID
}

// deployment is the id under which a flow runs, once the agent has told of it.
func (b *books) deployment(flow string) (id string) {
	b.t.Helper()
	b.eventually("the agent tells of its flow", func() error {
		var list struct {
			Items []struct {
				Status struct {
					Flows []struct {
						Deployment string `json:"deployment_id"`
						Name       string `json:"name"`
					} `json:"flows"`
				} `json:"status"`
			} `json:"items"`
		}
		if err := b.get("/agents", &list); err != nil || len(list.Items) != 1 {
			return fmt.Errorf("%d agents, %w", len(list.Items), err)
		}
		for _, f := range list.Items[0].Status.Flows {
			if f.Name == flow {
				id = f.Deployment
				return nil
			}
		}
		return fmt.Errorf("the agent runs %+v", list.Items[0].Status.Flows)
	})
	return id
}

// breakBehind destroys some bytes behind each place in files of the staging that holds a text. The files' names match.
func (b *books) breakBehind(pattern, text string) {
	b.t.Helper()
	const long = 16
	files, err := filepath.Glob(b.path("agent", "stage", pattern))
	if err != nil || len(files) == 0 {
		b.t.Fatalf("the files %q: %v", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			b.t.Fatal(err)
		}
		parts := bytes.SplitAfter(content, []byte(text))
		if len(parts) == 1 {
			b.t.Fatalf("%s does not hold %q", file, text)
		}
		for _, part := range parts[1:] {
			copy(part, bytes.Repeat([]byte{0xaa}, long))
		}
		if err := os.WriteFile(file, content, 0o600); err != nil { //nolint:gosec // the test's own folder
			b.t.Fatal(err)
		}
	}
}

// TestFaultDamageIsShownEverywhere damages the files of an agent that was killed. What is whole arrives; what was lost, salvaged and
// set back is the same in the agent's status, its metrics, the API, the client, and in the dashboard.
func TestFaultDamageIsShownEverywhere(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.write(100)
	b.until("the first rows are acknowledged", func(a account) bool { return a.Acknowledged == 100 })
	deployment := b.deployment("account")
	b.controlPlane.stop()
	b.write(400)
	b.until("more wait", func(a account) bool { return a.Produced == 500 })
	// A clean stop leaves nothing in the journal alone.
	b.agent.stop()
	b.run()
	b.until("the agent is there again", func(a account) bool { return a.Produced == 500 })
	b.agent.kill()
	b.breakBehind("outbox-*.db", padOf(300))
	b.breakBehind("state.db", deployment)
	b.run()
	told := b.until("a damaged file is told", func(a account) bool { return a.DamagedFiles > 0 })
	if told.DamagedFiles != 2 || len(told.Damage) != 2 {
		t.Errorf("the account is %+v", told)
	}
	lost, salvaged, again := uint64(0), uint64(0), []string{}
	for _, d := range told.Damage {
		lost, salvaged = lost+d.Lost, salvaged+d.Salvaged
		again = append(again, slices.Concat(d.SetBack, d.StartedAnew)...)
		if d.Reason == "" || !strings.Contains(d.File, ".corrupt-") {
			t.Errorf("a damaged file is told as %+v", d)
		}
	}
	if !slices.Contains(again, deployment) {
		t.Errorf("flow %s is damaged, and those that repeat are %q", deployment, again)
	}
	// The control plane, which is away, may have some of them.
	if perhaps := told.Lost + told.LostUnsure; perhaps == 0 || perhaps != lost || told.Salvaged != salvaged || salvaged+lost < 400 {
		t.Errorf("the account is %+v", told)
	}
	b.startControlPlane()
	done := b.until("what is whole is acknowledged", func(a account) bool { return a.Produced >= 500 && a.Acknowledged == a.Produced })
	if done.Lost != lost || done.LostUnsure != 0 {
		t.Errorf("once the control plane has said what it has, the account is %+v", done)
	}
	b.compare(done, bookkeeping{Receipts: map[string]uint64{"damaged": lost}})

	status := string(b.command(b.agentEnv(), nil, bin(t, "outfeed-agent"), "status"))
	client := string(b.outfeed(nil, "agent", "list")) + string(b.outfeed(nil, "insight", "missing"))
	for _, want := range []string{strconv.FormatUint(salvaged, 10), "check this machine's disk", ".corrupt-"} {
		if !strings.Contains(status, want) {
			t.Errorf("the status does not say %q:\n%s", want, status)
		}
	}
	for _, want := range []string{"2 damaged files", fmt.Sprint(lost, " lost"), "damaged on the agent's disk"} {
		if !strings.Contains(client, want) {
			t.Errorf("the client does not say %q:\n%s", want, client)
		}
	}
	t.Logf("%d insights salvaged, %d lost, %d flows repeat:\n%s", salvaged, lost, len(again), status)
	b.look(b.only(), "damaged", "Check the disk of", "account started anew; some of its insights may come twice.", fmt.Sprintf("%d salvaged.", salvaged), "Insights that never came", "could not be salvaged")
}

// TestFaultExpiredByAgeIsShownEverywhere lets insights expire while the control plane is away.
func TestFaultExpiredByAgeIsShownEverywhere(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.write(50)
	b.until("the first rows are acknowledged", func(a account) bool { return a.Acknowledged == 50 })
	b.agent.stop()
	b.controlPlane.stop()
	b.run("OUTFEED_AGENT_STAGING_MAX_AGE=1m")
	b.write(200)
	gone := b.until("they expire", func(a account) bool { return a.Produced == 250 && a.Expired["expired_age"] == 200 })
	if gone.WaitingRecords != 0 || gone.Acknowledged != 50 || gone.Lost != 0 || gone.Expired["expired_bytes"] != 0 {
		t.Errorf("after they have expired the account is %+v", gone)
	}
	status := string(b.command(b.agentEnv(), nil, bin(t, "outfeed-agent"), "status"))
	if !strings.Contains(status, "200") || !strings.Contains(status, "staging.max_age") {
		t.Errorf("the status does not say why 200 are gone:\n%s", status)
	}
	b.startControlPlane()
	b.write(10)
	done := b.until("the rest is acknowledged", func(a account) bool { return a.Acknowledged == 260 })
	b.compare(done, bookkeeping{Receipts: map[string]uint64{"expired_age": 200}})
	if m := b.measured(); m[`insights_expired_total{rule="age"}`] != 200 {
		t.Errorf("the metrics are %v", m)
	}
	show := string(b.outfeed(nil, "insight", "missing"))
	if !strings.Contains(show, "51") || !strings.Contains(show, "250") || !strings.Contains(show, "rule for age") {
		t.Errorf("the client says\n%s", show)
	}
	t.Logf("the status while they were expiring:\n%s", status)
	b.look(b.only(), "expired", "Insights that never came", "51 to 250", "staging.max_age")
}

// TestFaultAStageThatCannotWriteIsShown lets the disk of a connected agent fail, and then fills it. The status and the API say
// what is the matter, and that it is over.
func TestFaultAStageThatCannotWriteIsShown(t *testing.T) {
	t.Parallel()
	d := newSmallDisk(t, "size=160m")
	b := newBooksOn(t, newSiteOn(t, d))
	b.write(20)
	b.until("the first rows are acknowledged", func(a account) bool { return a.Acknowledged == 20 })
	// shown waits until the agent and the API say so, and gives what the status says to people.
	shown := func(what string, wanted func(account) bool) string {
		b.until(what, wanted)
		b.eventually(what+", in the API", func() error {
			told, err := b.told()
			if err == nil && !wanted(told.account) {
				err = fmt.Errorf("it says %+v", told)
			}
			return err
		})
		return string(b.command(b.agentEnv(), nil, bin(t, "outfeed-agent"), "status"))
	}
	// strace has every sync fail from when it is there until it is not.
	strace := start(t, b.path("strace.log"), nil, "strace", "-f", "-p", strconv.Itoa(b.agent.cmd.Process.Pid), "-e", "trace=fdatasync,fsync",
		"-e", "inject=fdatasync,fsync:error=EIO")
	if said := shown("it cannot write", func(a account) bool {
		if a.Degraded == "" {
			b.write(1)
		}
		return a.Degraded != ""
	}); !strings.Contains(said, "input/output error") {
		t.Errorf("when syncs fail the status says\n%s", said)
	}
	b.picture(b.only(), "degraded", "The agent cannot write to its disk", "input/output error")
	strace.stop()
	shown("it writes again", func(a account) bool { return a.Degraded == "" && a.Acknowledged == b.rows })
	d.fill()
	b.write(20)
	if said := shown("commits wait", func(a account) bool { return a.Blocked > 0 && a.BlockedBy != "" }); !strings.Contains(said, "stay free: make room") {
		t.Errorf("on a full disk the status says\n%s", said)
	}
	b.picture(b.only(), "blocked", "for room")
	d.empty()
	shown("they go on", func(a account) bool { return a.Blocked == 0 && a.Acknowledged == b.rows })
}

// TestFaultADirectoryThatWentBackIsShown puts an older copy of the staging in its place, as a restored backup does. Nothing that is
// produced afterwards is lost, and the status, the API, the client and the dashboard say what happened and that no disk is to blame.
func TestFaultADirectoryThatWentBackIsShown(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.write(50)
	b.until("the first rows are acknowledged", func(a account) bool { return a.Acknowledged == 50 })
	b.agent.stop()
	backup := b.path("backup")
	if err := os.CopyFS(backup, os.DirFS(b.path("agent", "stage"))); err != nil {
		t.Fatal(err)
	}
	b.run()
	b.write(100)
	b.until("more are acknowledged", func(a account) bool { return a.Acknowledged == 150 })
	b.agent.stop()
	if err := errors.Join(os.RemoveAll(b.path("agent", "stage")), os.Rename(backup, b.path("agent", "stage"))); err != nil {
		t.Fatal(err)
	}
	b.run()
	b.write(10)
	// The flow reads again what the older state does not know of: 100 rows, and the 10 new ones.
	done := b.until("all is acknowledged", func(a account) bool { return a.Acknowledged == 260 && a.WaitingRecords == 0 })
	if len(done.Damage) != 1 || !strings.HasPrefix(done.Damage[0].File, "outbox.corrupt-") || done.DamagedFiles != 1 || done.Lost != 0 {
		t.Errorf("the account is %+v", done)
	}
	b.compare(done, bookkeeping{Receipts: map[string]uint64{}})
	status := string(b.command(b.agentEnv(), nil, bin(t, "outfeed-agent"), "status"))
	client := string(b.outfeed(nil, "agent", "list")) + string(b.outfeed(nil, "agent", "show", b.only()))
	for said, all := range map[string][]string{
		status: {"staging went back", "went back  ", "older copy of the directory"}, client: {"staging went back", "older copy of the directory"},
	} {
		for _, want := range all {
			if !strings.Contains(said, want) {
				t.Errorf("it does not say %q:\n%s", want, said)
			}
		}
		if strings.Contains(said, "the disk of") || strings.Contains(said, "this machine's disk") {
			t.Errorf("it blames the disk:\n%s", said)
		}
	}
	b.look(b.only(), "went-back", "an older copy of the agent's staging directory was put in its place", "The directory went back.")
}

// TestFaultALostKeyIsToldWithWhatToDo removes the agent's keys, as a person does who clears up. The agent and its status say so, and what
// they say makes the machine an agent again.
func TestFaultALostKeyIsToldWithWhatToDo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.agent.stop()
	if err := os.Remove(s.path("agent", "identity", "keys.pem")); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"run", "status"} {
		_, said, err := s.try(s.agentEnv(), nil, bin(t, "outfeed-agent"), command)
		if err == nil || !strings.Contains(said, "keys.pem is not there") || !strings.Contains(said, "outfeed-agent enroll --url URL") || strings.Contains(said, "lstat") {
			t.Errorf("%s: %v: %s", command, err, said)
		}
		_, remedy, _ := strings.Cut(said, "then run `")
		remedy, _, _ = strings.Cut(remedy, "`")
		if command == "status" {
			s.command(nil, nil, "sh", "-c", remedy)
		}
	}
	s.enrol(s.link.address)
	s.startAgent()
	s.eventually("the new agent is connected", func() error {
		if st := s.agentStatus(); !st.Tunnel.Connected {
			return fmt.Errorf("the agent says %+v", st)
		}
		return nil
	})
	if said := string(s.command(s.agentEnv(), nil, bin(t, "outfeed-agent"), "status")); !strings.Contains(said, "set aside") {
		t.Errorf("the status does not say what became of what was staged:\n%s", said)
	}
	var list struct {
		Items []struct {
			ID     string `json:"id"`
			Outbox struct {
				SetAside []struct {
					Dir string `json:"dir"`
				} `json:"set_aside"`
			} `json:"outbox"`
		} `json:"items"`
	}
	now := ""
	s.eventually("the API tells of what was set aside", func() error {
		if err := s.get("/agents", &list); err != nil {
			return err
		}
		for _, g := range list.Items {
			if len(g.Outbox.SetAside) == 1 && strings.HasPrefix(g.Outbox.SetAside[0].Dir, "stage.of-") {
				now = g.ID
				return nil
			}
		}
		return fmt.Errorf("the agents are %+v", list.Items)
	})
	s.look(now, "set-aside", "This machine was another agent before.", "stage.of-")
}

// TestFaultLateAndRefusedAreShown looks at an agent whose rows came too late and whose insights no control plane takes.
func TestFaultLateAndRefusedAreShown(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.write(20, 3, 4)
	b.late(7)
	b.until("all is acknowledged", func(a account) bool { return a.Acknowledged == 21 && a.Late == 7 })
	b.eventually("the API says so", func() error {
		told, err := b.told()
		if err == nil && (told.Refused != 2 || told.Late != 7) {
			err = fmt.Errorf("it says %+v", told)
		}
		return err
	})
	if !*pictures {
		return
	}
	// The next status would tell the right time.
	b.agent.stop()
	b.sql("UPDATE agents SET clock_skew = -7300, rotate_asked_at = now() - interval '1 hour'")
	b.picture(b.only(), "refused", "Refused insights", "What came", "behind the control plane", "timedatectl set-ntp true", "outfeed-agent rotate-keys", "The agent is not connected, so this is what it said")
}
