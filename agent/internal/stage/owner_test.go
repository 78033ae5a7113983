package stage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// leave lets an owner stage three insights, a desired state and a run report, and acknowledges one insight.
func leave(t *testing.T, s stage.Settings) {
	t.Helper()
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(3, "a")})
	if err := errors.Join(st.Acknowledge(t.Context(), 1), st.PutDesired(t.Context(), []byte("flows of a"), 7), st.PutRunReport(t.Context(), "r", []byte("report of a"))); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatAnotherOwnerStagedIsSetAside(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	a := settings(t, filepath.Join(t.TempDir(), "stage"))
	a.Owner, a.Logger = "agent-a", slog.New(slog.NewTextHandler(&log, nil))
	leave(t, a)
	before := contents(t, a.Dir)

	b := a
	b.Owner = "agent-b"
	for range 2 { // the second start finds its own
		st := open(t, b)
		got := st.Stats()
		if got.Produced != 0 || got.WaitingRecords != 0 {
			t.Errorf("a fresh staging has %+v", got)
		}
		if len(got.Formers) != 1 || got.Formers[0].Owner != "agent-a" || got.Formers[0].Waiting != 2 {
			t.Fatalf("set aside: %+v", got.Formers)
		}
		reports, err := st.RunReports(t.Context(), 10)
		if err != nil || len(reports) != 0 {
			t.Errorf("run reports: %v, %v", reports, err)
		}
		if err := st.PutDesired(t.Context(), []byte("flows of b"), 1); err != nil {
			t.Errorf("a lower serial of another owner is refused: %v", err)
		}
		former := got.Formers[0].Dir
		if !strings.HasPrefix(former, a.Dir+".of-agent-a-") {
			t.Errorf("it was set aside as %s", former)
		}
		after := contents(t, former)
		if after["WAITING"] != "2\n" {
			t.Errorf("WAITING is %q", after["WAITING"])
		}
		delete(after, "WAITING")
		if !maps.Equal(before, after) {
			t.Error("what was set aside is not what there was")
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "waiting_insights=2"); n != 1 {
		t.Errorf("%d messages: %s", n, log.String())
	}
}

// TestADirectoryThatHoldsNothingIsClaimed begins where a first start was stopped before it had an owner.
func TestADirectoryThatHoldsNothingIsClaimed(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	for _, name := range []string{"LOCK", "OWNER.new", "lost+found"} {
		if err := errors.Join(os.MkdirAll(s.Dir, 0o700), os.WriteFile(filepath.Join(s.Dir, name), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s.Owner = "agent-a"
	if got := open(t, s).Stats(); got.Produced != 0 || len(got.Formers) != 0 || got.SetAside != 0 {
		t.Errorf("the claimed staging has %+v", got)
	}
	if owner, err := stage.Owner(s.Dir); owner != "agent-a" || err != nil {
		t.Errorf("the owner is %q, %v", owner, err)
	}
}

func TestADamagedStateIsSetAsideWithItsOwner(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner = "../a b"
	leave(t, s)
	if err := os.WriteFile(filepath.Join(s.Dir, "RUNNING"), nil, 0o600); err != nil { // it was not a clean stop
		t.Fatal(err)
	}
	s.Owner = "agent-b"
	s.Verify = func(_ context.Context, path string) error { return fmt.Errorf("%w: %s", stage.ErrDamaged, path) }
	got := open(t, s).Stats().Formers
	if len(got) != 1 || got[0].Owner != "../a b" || got[0].Waiting != -1 || filepath.Dir(got[0].Dir) != filepath.Dir(s.Dir) {
		t.Errorf("set aside: %+v", got)
	}
}

func TestWhatIsInUseOrNewerIsNotSetAside(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner = "agent-a"
	st := open(t, s)
	other := s
	other.Owner = "agent-b"
	if _, err := stage.Open(t.Context(), other); !errors.Is(err, stage.ErrLocked) {
		t.Errorf("Open of what is in use gave %v", err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	// A process that another test has just forked holds a copy of the lock until it becomes another program.
	other.LockWait = 10 * time.Second
	// A newer agent has been here: the state says so too.
	state := filepath.Join(s.Dir, "state.db")
	if err := errors.Join(stage.PutOrigin(state, "agent-a", 3), os.WriteFile(filepath.Join(s.Dir, "FORMAT"), []byte("outfeed-stage 3\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	before := contents(t, s.Dir)
	for _, text := range []string{"outfeed-stage 3\n", "outfeed-stage \x00\n", ""} {
		if err := os.WriteFile(filepath.Join(s.Dir, "FORMAT"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, owner := range []stage.Settings{s, other} {
			if _, err := stage.Open(t.Context(), owner); !errors.Is(err, stage.ErrNewerFormat) {
				t.Errorf("Open of a newer directory with the FORMAT %q gave %v", text, err)
			}
		}
		if after := contents(t, s.Dir); after["state.db"] != before["state.db"] || after["FORMAT"] != text {
			t.Errorf("the refusal has changed the directory")
		}
	}
	list, err := filepath.Glob(s.Dir + ".of-*")
	if err != nil || len(list) != 0 {
		t.Errorf("set aside: %v, %v", list, err)
	}
}

// TestADamagedOwnerOrFormatIsProvenOrRefused damages the two texts and leaves the state whole, or not.
func TestADamagedOwnerOrFormatIsProvenOrRefused(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]struct {
		file, text string
		// without says that the state is damaged too, and state whose it is by that, agent-a for none.
		without bool
		state   string
		owner   string
		// refused says that nobody may start, and aside that the directory is set aside.
		refused, aside bool
	}{
		"a flipped bit in the owner":                   {file: "OWNER", text: "agent-c\n", owner: "agent-a"},
		"an owner without its end":                     {file: "OWNER", text: "agent-", owner: "agent-a"},
		"an empty owner":                               {file: "OWNER", owner: "agent-a"},
		"a zeroed owner":                               {file: "OWNER", text: strings.Repeat("\x00", 8), owner: "agent-a"},
		"a zeroed owner of another":                    {file: "OWNER", text: strings.Repeat("\x00", 8), owner: "agent-b", aside: true},
		"the owner of another":                         {file: "OWNER", text: "agent-a\n", owner: "agent-b", aside: true},
		"an owner where the state proves a third":      {file: "OWNER", text: "agent-c\n", state: "agent-d", owner: "agent-a", aside: true},
		"the owner of another without a state":         {file: "OWNER", text: "agent-c\n", without: true, owner: "agent-a", aside: true},
		"a zeroed owner without a state":               {file: "OWNER", text: "\x00\x00\n", without: true, owner: "agent-a", refused: true},
		"an empty format":                              {file: "FORMAT", owner: "agent-a"},
		"a zeroed format":                              {file: "FORMAT", text: strings.Repeat("\x00", 16), owner: "agent-a"},
		"a flipped bit in the format":                  {file: "FORMAT", text: "outfeed-stage 3\n", owner: "agent-a"},
		"a flipped bit in the format's word":           {file: "FORMAT", text: "outfeed-sta'e 2\n", owner: "agent-a"},
		"a format without its digit":                   {file: "FORMAT", text: "outfeed-stage ", owner: "agent-a"},
		"two flipped bits in the format":               {file: "FORMAT", text: "outfeed-stage 4\n", owner: "agent-a", refused: true},
		"three flipped bits in the format":             {file: "FORMAT", text: "outfeed-stage 9\n", owner: "agent-a", refused: true},
		"a flipped bit that makes a six":               {file: "FORMAT", text: "outfeed-stage 6\n", owner: "agent-a"},
		"a flipped bit that makes a zero":              {file: "FORMAT", text: "outfeed-stage 0\n", owner: "agent-a"},
		"a higher format without a state":              {file: "FORMAT", text: "outfeed-stage 3\n", without: true, owner: "agent-a", refused: true},
		"a zeroed format without a state":              {file: "FORMAT", text: "\x00", without: true, owner: "agent-a", refused: true},
		"a damaged format, and the agent is another's": {file: "FORMAT", text: "\x00", owner: "agent-b", aside: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := settings(t, filepath.Join(t.TempDir(), "stage"))
			s.Owner = "agent-a"
			leave(t, s)
			state := filepath.Join(s.Dir, "state.db")
			if how.state != "" {
				if err := stage.PutOrigin(state, how.state, 2); err != nil {
					t.Fatal(err)
				}
			}
			if how.without {
				if err := os.WriteFile(state, make([]byte, 1<<15), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(s.Dir, how.file), []byte(how.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, log := logged(t, s)
			s.Owner = how.owner
			if how.refused {
				t.Cleanup(func() { _ = os.Remove(state) }) // nobody else opens it
				if _, err := stage.Open(t.Context(), s); !errors.Is(err, stage.ErrDamaged) && !errors.Is(err, stage.ErrNewerFormat) {
					t.Fatalf("Open gave %v", err)
				}
				if after := contents(t, s.Dir); after[how.file] != how.text {
					t.Errorf("the refusal has written %q", after[how.file])
				}
				return
			}
			for range 2 {
				st := open(t, s)
				got := st.Stats()
				if aside := len(got.Formers) == 1; aside != how.aside || !aside && got.WaitingRecords != 2 || aside && got.Produced != 0 {
					t.Errorf("stats: %+v", got)
				}
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
			after := contents(t, s.Dir)
			if !strings.HasPrefix(after["OWNER"], how.owner+"\ncrc32c ") || after["FORMAT"] != "outfeed-stage 2\n" {
				t.Errorf("OWNER is %q and FORMAT %q", after["OWNER"], after["FORMAT"])
			}
			if n := strings.Count(log.String(), "written anew"); !how.aside && n != 1 || n > 1 {
				t.Errorf("%d messages: %s", n, log)
			}
		})
	}
}

// TestNoTurnedBitMakesAnotherOwnerOrLayout turns each bit of OWNER and of FORMAT, with a state that proves them and without.
func TestNoTurnedBitMakesAnotherOwnerOrLayout(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner = "agent-a"
	leave(t, s)
	without := killed(t, s)
	if err := os.Remove(filepath.Join(without.Dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	s.Logger, without.Logger = nil, nil
	whole := contents(t, s.Dir)
	for _, name := range []string{"OWNER", "FORMAT"} {
		for bit := range 8 * len(whole[name]) {
			b := []byte(whole[name])
			b[bit/8] ^= 1 << (bit % 8)
			if name == "FORMAT" && strings.TrimSpace(string(b)) == strings.TrimSpace(whole[name]) {
				continue // it means the same
			}
			if err := errors.Join(os.WriteFile(filepath.Join(s.Dir, name), b, 0o600), os.WriteFile(filepath.Join(without.Dir, name), b, 0o600)); err != nil {
				t.Fatal(err)
			}
			_, err := stage.Open(t.Context(), without)
			if !errors.Is(err, stage.ErrDamaged) && !errors.Is(err, stage.ErrNewerFormat) {
				t.Fatalf("%s says %q and there is no state: Open gives %v", name, b, err)
			}
			if after := contents(t, without.Dir); after[name] != string(b) || after["state.db"] != "" {
				t.Fatalf("the refusal of the %s %q has changed the directory", name, b)
			}
			if bit%9 != 0 {
				continue // the rest of them at each start would take long
			}
			st, err := stage.Open(t.Context(), s)
			if err != nil {
				t.Fatalf("%s says %q, and the state proves it: Open gives %v", name, b, err)
			}
			if got := st.Stats(); got.WaitingRecords != 2 || len(got.Formers) != 0 || got.SetAside != 0 {
				t.Errorf("with the %s %q: %+v", name, b, got)
			}
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
			if after := contents(t, s.Dir); after[name] != whole[name] {
				t.Errorf("the %s %q becomes %q", name, b, after[name])
			}
		}
		if err := os.WriteFile(filepath.Join(without.Dir, name), []byte(whole[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnOwnerThatAPersonHasWrittenGetsItsChecksum writes the line that the refusal asks for.
func TestAnOwnerThatAPersonHasWrittenGetsItsChecksum(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner = "agent-a"
	leave(t, s)
	path := filepath.Join(s.Dir, "OWNER")
	whole, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte("agent-a\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := open(t, s).Stats(); got.WaitingRecords != 2 || len(got.Formers) != 0 {
		t.Errorf("stats: %+v", got)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, whole) {
		t.Errorf("OWNER says %q, %v", after, err)
	}
}

// TestAnOlderLayoutIsMarkedAsThisOne lets an agent of an earlier layout know that it cannot read the directory any more.
func TestAnOlderLayoutIsMarkedAsThisOne(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner = "agent-a"
	leave(t, s)
	if err := os.WriteFile(filepath.Join(s.Dir, "FORMAT"), []byte("outfeed-stage 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := open(t, s).Stats(); got.WaitingRecords != 2 {
		t.Errorf("stats: %+v", got)
	}
	if text := contents(t, s.Dir)["FORMAT"]; text != "outfeed-stage 2\n" {
		t.Errorf("FORMAT says %q", text)
	}
}

// TestADamagedStateOfAnotherAfterACleanStopEndsNoStart counts what waits in a directory that nothing has verified.
func TestADamagedStateOfAnotherAfterACleanStopEndsNoStart(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner = "agent-a"
	leave(t, s)
	for page := int64(2); page < 8; page++ {
		to := killed(t, s)
		inChildren(&to)
		to.Owner = "agent-b"
		overwrite(t, filepath.Join(to.Dir, "state.db"), page*4096, bytes.Repeat([]byte{0xff}, 4096))
		if got := open(t, to).Stats(); len(got.Formers) != 1 || got.Formers[0].Waiting != 2 && got.Formers[0].Waiting != -1 || got.Produced != 0 {
			t.Errorf("page %d: %+v", page, got)
		}
	}
}

// withoutFiles removes files from a directory.
func withoutFiles(names ...string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		for _, name := range names {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestWhatWaitsInADirectoryThatIsSetAside counts it by what the rules have dropped, by what only the journal or its mark has, and
// says where it does not know.
func TestWhatWaitsInADirectoryThatIsSetAside(t *testing.T) {
	t.Parallel()
	rows := func(t *testing.T, st *stage.Stage, from, to uint64) {
		t.Helper()
		for n := from; n <= to; n++ {
			commit(t, st, stage.Checkpoint{Flow: "a", Number: n, Insights: payloads(10, fmt.Sprint("rows", n))})
		}
	}
	type harmed func(t *testing.T, dir string)
	removed := func(names ...string) harmed { return withoutFiles(names...) }
	emptied := func(names ...string) harmed {
		return func(t *testing.T, dir string) {
			t.Helper()
			for _, name := range names {
				if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 512<<10), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		stops bool
		harm  harmed
		want  string
	}{
		"stopped":                          {stops: true, harm: removed(), want: "45"},
		"killed":                           {harm: removed(), want: "at most 50"},
		"killed, the journal is zeroed":    {harm: emptied("JOURNAL"), want: "at most 50"},
		"killed, the journal is removed":   {harm: removed("JOURNAL"), want: "at most 50"},
		"killed, without a mark":           {harm: removed("RUNNING", "LOCK"), want: "at most 50"},
		"killed, neither journal nor mark": {harm: emptied("JOURNAL", "RUNNING", "LOCK"), want: "unknown"},
		"stopped, the state is removed":    {stops: true, harm: removed("state.db"), want: "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := settings(t, filepath.Join(t.TempDir(), "stage"))
			s.Owner = "agent-a"
			inChildren(&s)
			st := open(t, s)
			rows(t, st, 1, 2)
			if err := st.Acknowledge(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
			if err := st.PutRunReport(t.Context(), "run", []byte("x")); err != nil { // with it all is on the disk
				t.Fatal(err)
			}
			rows(t, st, 3, 6)
			if err := st.Acknowledge(t.Context(), 15); err != nil {
				t.Fatal(err)
			}
			if c.stops {
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				s = killed(t, s)
			}
			c.harm(t, s.Dir)
			s.Owner = "agent-b"
			got := open(t, s).Stats().Formers
			if len(got) != 1 {
				t.Fatalf("set aside: %+v", got)
			}
			number := strings.TrimPrefix(c.want, "at most ")
			if text := contents(t, got[0].Dir)["WAITING"]; text != c.want+"\n" || got[0].AtMost != (number != c.want) || got[0].Waiting >= 0 && strconv.FormatInt(got[0].Waiting, 10) != number {
				t.Errorf("WAITING says %q, want %s: %+v", text, c.want, got[0])
			}
		})
	}
}

// TestWhatARuleHasDroppedDoesNotWait counts what waits behind what drop_oldest has dropped.
func TestWhatARuleHasDroppedDoesNotWait(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner, s.WhenFull, s.MaxBytes = "agent-a", stage.DropOldest, 400<<10
	st := open(t, s)
	long := strings.Repeat("x", 3000)
	for n := uint64(1); n <= 40; n++ {
		commit(t, st, stage.Checkpoint{Flow: "a", Number: n, Insights: payloads(10, long)})
	}
	want := st.Stats()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	s.Owner = "agent-b"
	got := open(t, s).Stats().Formers
	if want.Expired[stage.GoneExpiredBytes] == 0 || len(got) != 1 || got[0].Waiting != int64(want.WaitingRecords) || got[0].AtMost { //nolint:gosec // a few
		t.Errorf("%d wait of %d: %+v", want.WaitingRecords, want.Produced, got)
	}
}
