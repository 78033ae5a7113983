package stage_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// seed repeats a random test.
var seed = flag.Uint64("seed", 0, "the seed that a failed random test has printed")

// count is how many random cases to try, for a look at a few more.
var count = flag.Int("cases", 0, "how many random cases to try instead of the usual number")

// childEnv turns the test binary into a process that verifies, salvages or dumps; childArgs has what, line by line.
const (
	childEnv  = "OUTFEED_STAGE_CHILD"
	childArgs = "OUTFEED_STAGE_ARGS"
)

const cannotVerify = 75

// child is what the process does. Like the agent's hidden command it tells damage from what it could not find out.
func child(what string) int {
	args := strings.Split(os.Getenv(childArgs), "\n")
	var err error
	switch what {
	case "verify":
		err = stage.Verify(args[0])
	case "salvage":
		end, _ := strconv.ParseUint(args[2], 10, 64)
		err = stage.Salvage(args[0], args[1], end)
	case "record":
		err = scenario(args[0], args[1], args[2], args[3])
	case "dump":
		err = dump(args[0])
	case "spill":
		err = spillUntilKilled()
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.Is(err, stage.ErrDamaged) {
		return 1
	}
	return cannotVerify
}

// startChild runs the test binary as such a process.
func startChild(ctx context.Context, what string, args ...string) ([]byte, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, "-test.run=none") //nolint:gosec // it is this test itself
	cmd.Env = append(os.Environ(), childEnv+"="+what, childArgs+"="+strings.Join(args, "\n"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return out, nil
	case !exited || ctx.Err() != nil || exit.ExitCode() == cannotVerify:
		return out, fmt.Errorf("%w: %.2000s", err, stderr.String())
	}
	return out, fmt.Errorf("%w: %.2000s", stage.ErrDamaged, stderr.String())
}

// inChildren lets the stage verify and salvage as the agent does.
func inChildren(s *stage.Settings) {
	s.Verify = func(ctx context.Context, path string) error {
		_, err := startChild(ctx, "verify", path)
		return err
	}
	s.Salvage = func(ctx context.Context, path, target string, end uint64) error {
		_, err := startChild(ctx, "salvage", path, target, strconv.FormatUint(end, 10))
		return err
	}
}

// dumped is what a process found in a staging directory.
type dumped struct {
	Stats stage.Stats
	// Records are by sequence, as the checksums of their payloads; nil ones are lost.
	Records map[uint64]*uint32
	Flows   map[string]stage.FlowState
	// Started is how long Open took.
	Started time.Duration
}

// dump opens the directory for real and prints what is in it. It leaves it as a killed process would, so that the next
// start verifies again.
func dump(dir string) error {
	s := stage.Settings{Dir: dir, MinFreeBytes: 1}
	inChildren(&s)
	begun := time.Now()
	st, err := stage.Open(context.Background(), s)
	if err != nil {
		return err
	}
	d := dumped{Records: map[uint64]*uint32{}, Flows: map[string]stage.FlowState{}, Started: time.Since(begun)}
	for after := uint64(0); ; {
		records, err := st.ReadOutbox(context.Background(), after, 1000, 1<<20)
		if err != nil {
			return err
		}
		if len(records) == 0 {
			break
		}
		for _, r := range records {
			after = r.Seq
			d.Records[r.Seq] = nil
			if r.Gone == "" {
				sum := crc32.ChecksumIEEE(r.Payload)
				d.Records[r.Seq] = &sum
			}
		}
	}
	names, err := st.Flows(context.Background())
	if err != nil {
		return err
	}
	for _, name := range names {
		if d.Flows[name], err = st.LoadFlow(context.Background(), name); err != nil {
			return err
		}
	}
	d.Stats = st.Stats()
	if d.Stats.Degraded != "" {
		return errors.New(d.Stats.Degraded)
	}
	return json.NewEncoder(os.Stdout).Encode(d)
}

// sample is a staging directory that was filled, and what is in it.
type sample struct {
	dir string
	// earlier is what the files were at a moment before.
	earlier map[string][]byte
	files   map[string][]byte
	// payloads are by sequence-1; states are those of each flow at each of its commits, by number.
	payloads [][]byte
	states   map[string]map[uint64]stage.FlowState
	// history is the commits in their order.
	history []staged
	acked   uint64
	// running and lock are the files RUNNING and LOCK, each of which has the mark of what was acknowledged.
	running, lock []byte
}

// newSample fills a directory with several segments and the state of several flows.
func newSample(t *testing.T, random *rand.Rand) *sample {
	t.Helper()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	stage.SmallSegments(&s, 1<<20)
	stage.JournalBytes(&s, 640<<10)
	sm := &sample{dir: s.Dir, states: map[string]map[uint64]stage.FlowState{}}
	st := open(t, s)
	const commits = 120
	for i := range commits {
		if i == commits/2 {
			sm.earlier = readFiles(t, s.Dir)
		}
		sm.commit(t, st, random, fmt.Sprint("flow", i%5))
		if i == commits/4 {
			sm.acked = 20
			if err := st.Acknowledge(t.Context(), sm.acked); err != nil {
				t.Fatal(err)
			}
		}
		if i == commits/3 {
			if err := st.PutDesired(t.Context(), bytes.Repeat([]byte("desired"), 3000), 7); err != nil {
				t.Fatal(err)
			}
		}
	}
	sm.files, sm.running, sm.lock = snapshot(t, s.Dir)
	if n := len(databases(t, s.Dir)); n < 4 {
		t.Fatalf("there are only %d files", n)
	}
	return sm
}

func (sm *sample) commit(t *testing.T, st *stage.Stage, random *rand.Rand, flow string) {
	t.Helper()
	if sm.states[flow] == nil {
		sm.states[flow] = map[uint64]stage.FlowState{0: {Cursors: map[string][]byte{}, Operators: map[string]map[string][]byte{}}}
	}
	number := uint64(len(sm.states[flow]))
	before := sm.states[flow][number-1]
	state := stage.FlowState{Number: number, Cursors: maps.Clone(before.Cursors), Operators: map[string]map[string][]byte{"agg": maps.Clone(before.Operators["agg"])}}
	c := stage.Checkpoint{Flow: flow, Number: number, Cursors: map[string][]byte{"read": fmt.Append(nil, number)}}
	state.Cursors["read"] = c.Cursors["read"]
	if state.Operators["agg"] == nil {
		state.Operators["agg"] = map[string][]byte{}
	}
	for range random.IntN(30) {
		key, value := fmt.Sprint("key", random.IntN(300)), randomBytes(random, random.IntN(200))
		c.Changes = append(c.Changes, stage.Change{Step: "agg", Key: key, Value: value})
		state.Operators["agg"][key] = value
	}
	for range 1 + random.IntN(60) {
		size := random.IntN(800)
		if random.IntN(200) == 0 {
			size = random.IntN(100_000)
		}
		p := fmt.Appendf(nil, "insight %d of %s %x", len(sm.payloads)+1, flow, randomBytes(random, 20+size/2))
		sm.payloads = append(sm.payloads, p)
		c.Insights = append(c.Insights, p)
	}
	commit(t, st, c)
	sm.states[flow][number] = state
	sm.history = append(sm.history, staged{flow: flow, number: number, last: uint64(len(sm.payloads))})
}

func randomBytes(random *rand.Rand, n int) []byte {
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], random.Uint64())
	}
	return b[:n]
}

// snapshot reads the files of a running stage, RUNNING and LOCK as they are at one moment: a fold may come in between.
func snapshot(t *testing.T, dir string) (files map[string][]byte, running, lock []byte) {
	t.Helper()
	for {
		files = readFiles(t, dir)
		var err, lockErr error
		running, err = os.ReadFile(filepath.Join(dir, "RUNNING"))
		lock, lockErr = os.ReadFile(filepath.Join(dir, "LOCK"))
		if err = errors.Join(err, lockErr); err != nil {
			t.Fatal(err)
		}
		if maps.EqualFunc(files, readFiles(t, dir), bytes.Equal) {
			return files, running, lock
		}
	}
}

func readFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, path := range append(databases(t, dir), filepath.Join(dir, "JOURNAL")) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(path)] = b
	}
	return files
}

// fastDir makes a directory in memory where the system has that: nothing here depends on what a sync does.
func fastDir(t *testing.T) string {
	t.Helper()
	root := "/dev/shm"
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		root = ""
	}
	dir, err := os.MkdirTemp(root, "outfeed-stage-") //nolint:usetesting // not where t.TempDir is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// damage changes a file and says which bytes it may have changed.
func (sm *sample) damage(random *rand.Rand, name string) (after []byte, how string) {
	b := bytes.Clone(sm.files[name])
	const page, sector = 4096, 512
	pages := len(b) / page
	switch random.IntN(7) {
	case 0:
		n := 1 + random.IntN(20)
		for range n {
			b[random.IntN(len(b))] ^= 1 << random.IntN(8)
		}
		how = fmt.Sprint(n, " bits flipped")
	case 1:
		n := 1 + random.IntN(10)
		for range n {
			clear(b[random.IntN(len(b)/sector)*sector:][:sector])
		}
		how = fmt.Sprint(n, " sectors zeroed")
	case 2:
		n := 1 + random.IntN(5)
		for range n {
			copy(b[random.IntN(pages)*page:], randomBytes(random, page))
		}
		how = fmt.Sprint(n, " random pages")
	case 3:
		b = b[:random.IntN(len(b))]
		how = fmt.Sprint("cut to ", len(b))
	case 4:
		i, j := random.IntN(pages)*page, random.IntN(pages)*page
		copy(b[i:i+page], sm.files[name][j:j+page])
		copy(b[j:j+page], sm.files[name][i:i+page])
		how = fmt.Sprint("pages ", i/page, " and ", j/page, " swapped")
	case 5:
		old := sm.earlier[name]
		n := 0
		for range 1 + random.IntN(6) {
			if at := random.IntN(pages) * page; at+page <= len(old) {
				copy(b[at:at+page], old[at:at+page])
				n++
			}
		}
		how = fmt.Sprint(n, " pages of an earlier moment")
	default:
		// The pages that everything hangs on.
		for at := range min(12, pages) {
			if random.IntN(3) == 0 {
				copy(b[at*page:], randomBytes(random, sector))
			}
		}
		how = "the first pages overwritten"
	}
	return b, how
}

// untouched gives the sequences of which the damaged file still has every byte, payload and frame, where it was before.
func (sm *sample) untouched(before, after []byte, copies map[uint64][]int) map[uint64]bool {
	whole := map[uint64]bool{}
	for seq, starts := range copies {
		for _, start := range starts {
			end := start + frameBytes + len(sm.payloads[seq-1])
			if end <= len(after) && bytes.Equal(before[start:end], after[start:end]) {
				whole[seq] = true
			}
		}
	}
	return whole
}

// frameBytes is what is in front of a payload and belongs to it.
const frameBytes = 16

// idOf is what the checksums of a file begin with.
func idOf(name string, b []byte) string {
	if name == "JOURNAL" {
		_, seed := journalFrames(b)
		return strconv.FormatUint(seed, 16)
	}
	return strings.TrimSuffix(name[strings.LastIndex(name, "-")+1:], ".db")
}

// frameOf is what is in front of a payload in the file of that id, by docs/staging.md.
func frameOf(name string, seq uint64, payload []byte) []byte {
	id, _ := strconv.ParseUint(name, 16, 64)
	table := crc32.MakeTable(crc32.Castagnoli)
	b := binary.LittleEndian.AppendUint64(nil, id)
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload))) //nolint:gosec // small
	head := crc32.Checksum(b, table)
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(payload))) //nolint:gosec // small
	frame = binary.LittleEndian.AppendUint32(frame, uint32(seq))         //nolint:gosec // its low half
	frame = binary.LittleEndian.AppendUint32(frame, head)
	return binary.LittleEndian.AppendUint32(frame, crc32.Update(head, table, payload))
}

// copies finds every place in a file that holds a record, by its payload. Pages that bbolt has given up may have part of
// one only, without what belongs in front.
func (sm *sample) copies(name string, b []byte) map[uint64][]int {
	found := map[uint64][]int{}
	name = idOf(name, b)
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte("insight "))
		if i < 0 {
			return found
		}
		at += i
		digits, _, _ := strings.Cut(string(b[at+8:min(at+28, len(b))]), " ")
		seq, err := strconv.ParseUint(digits, 10, 64)
		if err == nil && seq > 0 && seq <= uint64(len(sm.payloads)) && bytes.HasPrefix(b[at:], sm.payloads[seq-1]) &&
			bytes.HasSuffix(b[:at], frameOf(name, seq, sm.payloads[seq-1])) {
			found[seq] = append(found[seq], at-frameBytes)
		}
		at += 8
	}
}

// TestFaultDamagedFilesServeNothingWrong damages the files of a filled directory and starts real processes on it.
func TestFaultDamagedFilesServeNothingWrong(t *testing.T) {
	t.Parallel()
	cases := 60
	if *long {
		cases = 2000
	}
	if *count > 0 {
		cases = *count
	}
	base := cmp.Or(*seed, uint64(time.Now().UnixNano()))
	t.Logf("seed %d", base)
	sm := newSample(t, rand.New(rand.NewPCG(base, 0))) //nolint:gosec // test data
	copies := map[string]map[uint64][]int{}
	for name, b := range sm.files {
		copies[name] = sm.copies(name, b)
	}
	var total tally
	for i := range cases {
		sm.one(t, rand.New(rand.NewPCG(base, uint64(i)+1)), copies, &total) //nolint:gosec // test data
		if t.Failed() {
			t.Fatalf("that was case %d of the seed %d", i, base)
		}
	}
	t.Logf("%d damaged directories: 0 wrong records served, 0 crash loops, the slowest start took %s; %d records salvaged, %d lost and counted; %d flows set back or started anew",
		cases, total.slowest.Round(time.Millisecond), total.salvaged, total.lost, total.flows)
}

// marks gives the files with the mark of what was acknowledged: after a power cut it may be missing, and of its two copies one
// may be damaged or removed.
func (sm *sample) marks(random *rand.Rand) map[string][]byte {
	harmed := func(b []byte) []byte {
		b = bytes.Clone(b)
		for range 1 + random.IntN(3) {
			copy(b[512*(1+random.IntN(2))+random.IntN(40):], randomBytes(random, 8))
		}
		return b
	}
	switch random.IntN(8) {
	default:
		return map[string][]byte{"RUNNING": {}}
	case 4:
		return map[string][]byte{"RUNNING": sm.running, "LOCK": sm.lock}
	case 5:
		return map[string][]byte{"RUNNING": sm.running, "LOCK": harmed(sm.lock)}
	case 6:
		return map[string][]byte{"RUNNING": harmed(sm.running), "LOCK": sm.lock}
	case 7:
		return map[string][]byte{"LOCK": sm.lock}
	}
}

type tally struct {
	slowest        time.Duration
	salvaged, lost uint64
	flows          int
}

// one damages one to three files and checks two starts.
func (sm *sample) one(t *testing.T, random *rand.Rand, copies map[string]map[uint64][]int, total *tally) {
	t.Helper()
	dir := fastDir(t)
	now := maps.Clone(sm.files)
	names := slices.Sorted(maps.Keys(now))
	var story []string
	headHit, commits, last := false, len(sm.history), uint64(len(sm.payloads))
	marks := sm.marks(random)
	marked := len(marks["RUNNING"])+len(marks["LOCK"]) > 0
	for range 1 + random.IntN(3) {
		name := names[random.IntN(len(names))]
		b, how := sm.damage(random, name)
		now[name] = b
		story = append(story, name+": "+how)
		if name == "state.db" {
			headHit = len(b) < 8192 || !bytes.Equal(b[:8192], sm.files[name][:8192])
		}
		if name == "JOURNAL" && !marked {
			commits, last = sm.proven(b)
		}
	}
	must := map[uint64]bool{}
	for name, b := range now {
		for seq := range sm.untouched(sm.files[name], b, copies[name]) {
			// Without the head of the state and that of the journal nothing tells whose frames those are.
			must[seq] = must[seq] || seq <= last && (name != "JOURNAL" || !headHit)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	marks["FORMAT"] = []byte("outfeed-stage 2\n")
	for name, text := range marks {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var before *dumped
	for start := range 2 {
		d := sm.start(t, dir)
		if d == nil {
			t.Errorf("start %d failed after %s", start+1, strings.Join(story, "; "))
			return
		}
		sm.check(t, d, must, headHit, commits)
		if before != nil && (before.Stats.Lost != d.Stats.Lost || before.Stats.SetAside != d.Stats.SetAside || before.Stats.Produced != d.Stats.Produced) {
			t.Errorf("the second start changes %+v into %+v", before.Stats, d.Stats)
		}
		if t.Failed() {
			t.Logf("start %d after %s: %+v", start+1, strings.Join(story, "; "), d.Stats)
			return
		}
		total.slowest = max(total.slowest, d.Started)
		before = d
	}
	total.salvaged, total.lost = total.salvaged+before.Stats.Salvaged, total.lost+before.Stats.Lost
	for _, f := range before.Stats.Damaged {
		total.flows += len(f.StartedAnew) + len(f.SetBack)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

func (sm *sample) start(t *testing.T, dir string) *dumped {
	t.Helper()
	// It is generous, because other tests share the machine; what Open took is compared.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := startChild(ctx, "dump", dir)
	var d dumped
	if err == nil {
		err = json.Unmarshal(out, &d)
	}
	if err != nil {
		t.Errorf("the process says: %v", err)
		return nil
	}
	return &d
}

// check compares what a process found with what was written. So many commits are proven by what is left of the journal.
func (sm *sample) check(t *testing.T, d *dumped, must map[uint64]bool, headHit bool, commits int) {
	t.Helper()
	end, newest := uint64(len(sm.payloads)), map[string]uint64{}
	if headHit {
		commits = 0
	}
	for i, c := range sm.history {
		if i < commits {
			newest[c.flow] = c.number
		}
		if i+1 >= commits && d.Stats.Produced == c.last {
			// What is behind is taken for a commit that was not acknowledged: the flow makes the insights again.
			end = c.last
		}
	}
	lost := uint64(0)
	for seq := d.Stats.Acknowledged + 1; seq <= end; seq++ {
		sum, there := d.Records[seq]
		switch {
		case !there || sum == nil:
			lost++
			if must[seq] {
				t.Errorf("record %d was not damaged and is not served", seq)
			}
		case *sum != crc32.ChecksumIEEE(sm.payloads[seq-1]):
			t.Errorf("record %d is served wrong", seq)
		}
	}
	if d.Stats.Produced > uint64(len(sm.payloads)) || d.Stats.Acknowledged > sm.acked {
		t.Errorf("the numbers are %d and %d", d.Stats.Produced, d.Stats.Acknowledged)
	}
	if counted := d.Stats.Lost + end - min(end, d.Stats.Produced); counted != lost {
		t.Errorf("%d records are missing and %d are counted as lost", lost, counted)
	}
	reported := map[string]bool{}
	for _, f := range d.Stats.Damaged {
		for _, flow := range slices.Concat(f.StartedAnew, f.SetBack) {
			reported[flow] = true
		}
	}
	for flow, states := range sm.states {
		got, there := d.Flows[flow]
		want := states[got.Number]
		if !there {
			want = states[0]
		}
		if there && !sameState(got, want) {
			t.Errorf("%s is at commit %d with a state that it never had", flow, got.Number)
		}
		if got.Number < newest[flow] && !reported[flow] && !reported["(a flow whose name could not be read)"] {
			t.Errorf("%s is at commit %d instead of %d and nothing says so", flow, got.Number, newest[flow])
		}
	}
}

func sameState(a, b stage.FlowState) bool {
	same := func(x, y []byte) bool { return bytes.Equal(x, y) }
	return a.Number == b.Number && maps.EqualFunc(a.Cursors, b.Cursors, same) && maps.EqualFunc(a.Operators["agg"], b.Operators["agg"], same)
}
