package stage_test

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// countingPlane is a control plane that knows of each place what became of it, as the real one does.
type countingPlane struct {
	stored uint64
	// texts are the insights that came, and receipts why the other places did not, each by their places.
	texts    map[uint64]string
	receipts map[uint64]string
}

// lost is what its Welcome says.
func (p *countingPlane) lost() (n uint64) {
	for _, reason := range p.receipts {
		if reason == stage.GoneDamaged || reason == stage.GoneUnsendable {
			n++
		}
	}
	return n
}

// take stores a record.
func (p *countingPlane) take(r *stage.Record) {
	for seq := max(r.Seq, p.stored+1); seq <= r.Last(); seq++ {
		if r.Gone != "" {
			p.receipts[seq] = r.Gone
		} else {
			p.texts[seq] = string(r.Payload)
		}
	}
	p.stored = max(p.stored, r.Last())
}

// lostModel is an agent to which anything happens, and its control plane.
type lostModel struct {
	*rand.Rand
	s     stage.Settings
	st    *stage.Stage
	plane *countingPlane
	// committed is how many insights were; steps is what has happened.
	committed, reports int
	steps              []string
	// failing says that no commit can succeed, and agreed that a session has agreed since the start. anew says that so much is gone
	// that places of the sequence which the control plane has are taken again, for other insights.
	failing, agreed, anew bool
}

func (m *lostModel) did(format string, args ...any) {
	m.steps = append(m.steps, fmt.Sprintf(format, args...))
}

// commits stages a few insights.
func (m *lostModel) commits(t *testing.T) {
	t.Helper()
	m.heals(t)
	state, err := m.st.LoadFlow(t.Context(), "a")
	if err != nil {
		t.Fatal(err, m.steps)
	}
	c := stage.Checkpoint{Flow: "a", Number: state.Number + 1}
	for range 1 + m.IntN(12) {
		c.Insights = append(c.Insights, fmt.Appendf(nil, "insight %06d %s", m.committed, strings.Repeat("x", m.IntN(700))))
		m.committed++
	}
	m.did("commit %d", len(c.Insights))
	if _, err := m.st.Commit(t.Context(), c); err != nil {
		t.Fatal(err, m.steps)
	}
	if m.IntN(3) == 0 {
		// With it all goes into the segments.
		m.folds(t)
	}
}

func (m *lostModel) folds(t *testing.T) {
	t.Helper()
	m.reports++
	m.did("fold")
	if err := m.st.PutRunReport(t.Context(), strconv.Itoa(m.reports), []byte("x")); err != nil && !m.failing {
		t.Fatal(err, m.steps)
	}
}

// fails lets no commit succeed from now on.
func (m *lostModel) fails(t *testing.T) {
	t.Helper()
	m.did("the disk fails")
	m.failing = true
	point := []string{"outbox", "state", "state landed"}[m.IntN(3)]
	stage.FailAt(m.st, func(at string) error {
		if at == point || at == "state" {
			return syscall.EIO
		}
		return nil
	})
	m.folds(t)
}

// heals lets commits succeed again.
func (m *lostModel) heals(t *testing.T) {
	t.Helper()
	if !m.failing {
		return
	}
	m.did("the disk is well")
	m.failing = false
	stage.FailAt(m.st, nil)
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for m.st.Stats().Degraded != "" {
		select {
		case <-look.C:
		case <-limit.C:
			t.Fatal("it stays degraded", m.st.Stats(), m.steps)
		}
	}
}

// session does what a session does, up to so many messages; some acknowledgements do not arrive.
func (m *lostModel) session(t *testing.T, messages int) {
	t.Helper()
	if !m.agreed {
		// That something is sent from now on cannot be noted on a disk that fails: a kill could let it come twice.
		m.heals(t)
	}
	m.agreed, m.anew = true, false
	m.did("session of %d, %d are stored and %d lost", messages, m.plane.stored, m.plane.lost())
	for after := uint64(0); after < m.plane.stored; {
		records, err := m.st.ReadOutbox(t.Context(), after, 50, 1<<20)
		if err != nil {
			t.Fatal(err, m.steps)
		}
		if len(records) == 0 {
			break
		}
		after = records[len(records)-1].Last()
	}
	lost := m.plane.lost()
	after, err := m.st.Reconcile(t.Context(), m.plane.stored, &lost)
	if err != nil || after < m.plane.stored {
		t.Fatal(after, err, m.steps)
	}
	if after > m.plane.stored {
		m.plane.take(&stage.Record{Seq: m.plane.stored + 1, Count: after - m.plane.stored, Gone: "restored"})
	}
	for range messages {
		records, err := m.st.ReadOutbox(t.Context(), after, 1+m.IntN(40), 1<<20)
		if err != nil {
			t.Fatal(err, m.steps)
		}
		if len(records) == 0 {
			return
		}
		for i := range records {
			if records[i].Seq != after+1 {
				t.Fatalf("%d is followed by %d: %v", after, records[i].Seq, m.steps)
			}
			after = records[i].Last()
			m.plane.take(&records[i])
		}
		if messages > 100 || m.IntN(4) > 0 {
			if err := m.st.Acknowledge(t.Context(), after); err != nil {
				t.Fatal(err, m.steps)
			}
		}
	}
}

// restarts ends the agent, damages what it has left on the disk, and starts it again.
func (m *lostModel) restarts(t *testing.T) {
	t.Helper()
	if m.IntN(4) > 0 {
		m.did("kill")
		was := m.s.Dir
		m.s.Dir = m.copied(t)
		stage.FailAt(m.st, nil)
		if err := m.st.Close(); err != nil {
			t.Fatal(err, m.steps)
		}
		_ = os.RemoveAll(was)
	} else {
		m.heals(t)
		m.did("stop")
		if err := m.st.Close(); err != nil {
			t.Fatal(err, m.steps)
		}
	}
	m.failing, m.agreed = false, false
	kinds := 5
	if m.steps[len(m.steps)-1] == "stop" {
		// Nothing is verified after a clean stop, and bbolt can believe a bit that has turned in its list of free pages.
		kinds = 4
	}
	for range m.IntN(3) {
		m.damages(t, kinds)
	}
	var err error
	if m.st, err = stage.Open(t.Context(), m.s); err != nil {
		t.Fatal(err, m.steps)
	}
	m.anew = m.anew || m.st.Stats().Produced < m.plane.stored
	m.did("start: %d lost and %d unsure of %d", m.st.Stats().Lost, m.st.Stats().LostUnsure, m.st.Stats().Produced)
}

// copied is a copy of the directory. A stage that mends itself can take away a file meanwhile.
func (m *lostModel) copied(t *testing.T) (dir string) {
	t.Helper()
	var err error
	for range 20 {
		dir = filepath.Join(fastDir(t), "stage")
		if err = os.CopyFS(dir, os.DirFS(m.s.Dir)); err == nil {
			return dir
		}
	}
	t.Fatal(err)
	return ""
}

// damages a file, or takes it away.
func (m *lostModel) damages(t *testing.T, kinds int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(m.s.Dir, "outbox-*.db"))
	if err != nil {
		t.Fatal(err)
	}
	state, journal := filepath.Join(m.s.Dir, "state.db"), filepath.Join(m.s.Dir, "JOURNAL")
	files = append(files, files...)
	files = append(files, state)
	if m.IntN(3) == 0 {
		files = append(files, journal)
	}
	path := files[m.IntN(len(files))]
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return // it is gone already
	}
	how := m.IntN(kinds)
	m.did("damage %d to %s", how, filepath.Base(path)[:7])
	switch how {
	case 0:
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	case 1:
		b = b[:0]
	case 2:
		clear(b)
	case 3:
		for at := 8192; at+4096 < len(b); at += 8192 {
			copy(b[at:], bytes.Repeat([]byte{0xa5}, 4096))
		}
	default:
		for range 1 + len(b)/3000 {
			b[m.IntN(len(b))] ^= 1 << m.IntN(8)
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil { //nolint:gosec // a file of the test
		t.Fatal(err)
	}
}

// wentBack says whether insights were numbered anew: those of them that were lost have no place that the control plane knows.
func wentBack(got *stage.Stats) bool {
	return slices.ContainsFunc(got.Damaged, func(d stage.DamagedFile) bool { return strings.HasPrefix(d.File, "outbox.corrupt-") })
}

// surelyLost is what the agent says to be lost without a doubt; the control plane cannot have more of it than what it lacks.
func (m *lostModel) surelyLost(t *testing.T) {
	t.Helper()
	got := m.st.Stats()
	lacks := uint64(0)
	for seq := uint64(1); seq <= max(got.Produced, m.plane.stored); seq++ {
		if _, there := m.plane.texts[seq]; !there {
			lacks++
		}
	}
	if sure := got.Lost - min(got.Lost, got.LostUnsure); sure > lacks && !m.anew && !wentBack(&got) {
		t.Fatalf("%d are lost and the control plane lacks %d: %+v\n%s", sure, lacks, got, strings.Join(m.steps, "\n"))
	}
}

// agrees looks whether both sides say the same once everything is sent.
func (m *lostModel) agrees(t *testing.T) {
	t.Helper()
	m.heals(t)
	m.session(t, 1000)
	m.session(t, 1000)
	got := m.st.Stats()
	if got.Acknowledged != m.plane.stored || got.Produced != m.plane.stored || got.LostUnsure != 0 || got.Lost != m.plane.lost() && !wentBack(&got) || got.Lost < m.plane.lost() {
		t.Fatalf("the control plane has %d, of which %d are lost: %+v\n%s", m.plane.stored, m.plane.lost(), got, strings.Join(m.steps, "\n"))
	}
	for seq := uint64(1); seq <= m.plane.stored; seq++ {
		_, came := m.plane.texts[seq]
		if _, told := m.plane.receipts[seq]; told == came {
			t.Fatalf("place %d came: %t, and has a receipt: %t\n%s", seq, came, told, strings.Join(m.steps, "\n"))
		}
	}
}

// TestBothSidesSayTheSameOfWhatIsLost lets sessions, kills, damage, missing files and failing disks follow each other at random.
// What the agent counts as lost is never what the control plane has, and once a session has agreed it is what that has receipts
// for, every place with one of its own.
func TestBothSidesSayTheSameOfWhatIsLost(t *testing.T) {
	t.Parallel()
	base := cmp.Or(*seed, uint64(time.Now().UnixNano()))
	t.Logf("seed %d", base)
	histories := 8
	if *long {
		histories = 150
	}
	for i := range histories {
		m := &lostModel{
			Rand:  rand.New(rand.NewPCG(base, uint64(i))), //nolint:gosec // a test
			plane: &countingPlane{texts: map[uint64]string{}, receipts: map[uint64]string{}},
		}
		m.s = settings(t, filepath.Join(fastDir(t), "stage"))
		m.s.Logger = slog.New(slog.DiscardHandler)
		inChildren(&m.s)
		if m.IntN(2) == 0 {
			stage.SmallSegments(&m.s, 8<<10)
		}
		var err error
		if m.st, err = stage.Open(t.Context(), m.s); err != nil {
			t.Fatal(err)
		}
		m.did("history %d of the seed %d", i, base)
		for range 14 {
			switch n := m.IntN(12); {
			case n < 4:
				m.commits(t)
			case n < 7:
				m.session(t, m.IntN(4))
			case n < 11:
				m.restarts(t)
			default:
				m.fails(t)
			}
			m.surelyLost(t)
		}
		m.agrees(t)
		m.restarts(t)
		m.agrees(t)
		if err := m.st.Close(); err != nil {
			t.Error(err)
		}
	}
}
