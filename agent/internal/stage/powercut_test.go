package stage_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// How the power cuts are made: processes that stage as the agent does run under strace, which writes down every call that
// reaches the kernel's files, in order, with its data. A disk is then simulated that has seen the calls up to a random one.
//
// What the simulated file system may do is what POSIX leaves open and a journalling file system such as ext4, XFS or one
// without barriers between files does:
//   - what an fsync or fdatasync of a file has confirmed is there, with the file's size;
//   - of what was written since, each sector of 512 bytes is there or not, on its own, in any of the versions that it had
//     since, or torn: the beginning of one version and the end of another;
//   - a change of a file's size since is there or not; what is in a file behind what was written is zero;
//   - names that were made, changed or removed are there once their directory was synced; of those since, either the first
//     few are there, as with a journal, or any of them.

const sectorBytes = 512

// diskFile is a file of the simulated disk.
type diskFile struct {
	// now is what the process sees; kept is what is on the disk for sure.
	now, kept []byte
	// versions has what a sector was since the last sync, by its number; sizes the file's sizes.
	versions map[int][][]byte
	sizes    []int
}

func (f *diskFile) resize(size int) {
	if size <= len(f.now) {
		f.now = f.now[:size:size]
	} else {
		f.now = append(f.now, make([]byte, size-len(f.now))...)
	}
	f.sizes = append(f.sizes, size)
}

func (f *diskFile) write(at int, data []byte) {
	if at+len(data) > len(f.now) {
		f.resize(at + len(data))
	}
	copy(f.now[at:], data)
	for n := at / sectorBytes; n*sectorBytes < at+len(data); n++ {
		f.versions[n] = append(f.versions[n], sector(f.now, n))
	}
}

func (f *diskFile) sync() {
	f.kept = bytes.Clone(f.now)
	clear(f.versions)
	f.sizes = f.sizes[:0]
}

// sector gives a copy of a sector, with zeros behind the end.
func sector(b []byte, n int) []byte {
	out := make([]byte, sectorBytes)
	if n*sectorBytes < len(b) {
		copy(out, b[n*sectorBytes:])
	}
	return out
}

// image is what the file may be after a power cut.
func (f *diskFile) image(random *rand.Rand) []byte {
	size := len(f.kept)
	if n := random.IntN(len(f.sizes) + 1); n > 0 {
		size = f.sizes[n-1]
	}
	out := make([]byte, size)
	copy(out, f.kept)
	// Often nearly all or nearly none of it is there.
	chance := []float64{0.02, 0.3, 0.7, 0.98}[random.IntN(4)]
	for _, n := range slices.Sorted(maps.Keys(f.versions)) {
		if n*sectorBytes >= size || random.Float64() > chance {
			continue
		}
		list := f.versions[n]
		chosen := list[random.IntN(len(list))]
		if random.IntN(16) == 0 {
			// Torn: the beginning is of another version.
			cut := random.IntN(sectorBytes)
			other := sector(f.kept, n)
			if random.IntN(2) == 0 {
				other = list[random.IntN(len(list))]
			}
			chosen = append(bytes.Clone(chosen[:cut]), other[cut:]...)
		}
		copy(out[n*sectorBytes:], chosen)
	}
	return out
}

// nameChange is a change of a directory: path leads to file, or to nothing when that is nil; gone is another name that
// goes with it.
type nameChange struct {
	path, gone string
	file       *diskFile
}

func (c nameChange) apply(names map[string]*diskFile) {
	delete(names, c.gone)
	if c.file == nil {
		delete(names, c.path)
	} else {
		names[c.path] = c.file
	}
}

// disk is the simulated disk.
type disk struct {
	now, kept map[string]*diskFile
	changes   []nameChange
}

func (d *disk) change(c nameChange) {
	c.apply(d.now)
	d.changes = append(d.changes, c)
}

// syncDir confirms the changes in a directory.
func (d *disk) syncDir(dir string) {
	rest := d.changes[:0:0]
	for _, c := range d.changes {
		if filepath.Dir(c.path) == dir {
			c.apply(d.kept)
		} else {
			rest = append(rest, c)
		}
	}
	d.changes = rest
}

// image gives the names and contents after a power cut.
func (d *disk) image(random *rand.Rand) map[string][]byte {
	names := maps.Clone(d.kept)
	some, first := random.IntN(2) == 0, random.IntN(len(d.changes)+1)
	for i, c := range d.changes {
		if some && random.IntN(2) == 0 || !some && i < first {
			c.apply(names)
		}
	}
	out := map[string][]byte{}
	images := map[*diskFile][]byte{}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		f := names[path]
		if images[f] == nil {
			images[f] = f.image(random)
		}
		out[path] = images[f]
	}
	return out
}

// call is a call that was recorded.
type call struct {
	name   string
	path   string
	second string
	at     int
	data   []byte
	create bool
	trunc  bool
}

// play lets the disk see a call.
func (d *disk) play(c *call) {
	f := d.now[c.path]
	switch c.name {
	case "openat":
		if f == nil && c.create {
			d.change(nameChange{path: c.path, file: &diskFile{versions: map[int][][]byte{}}})
		} else if f != nil && c.trunc {
			f.resize(0)
		}
	case "pwrite64", "write":
		if f != nil {
			at := c.at
			if c.name == "write" {
				at = len(f.now)
			}
			f.write(at, c.data)
		}
	case "ftruncate":
		if f != nil {
			f.resize(c.at)
		}
	case "fsync", "fdatasync":
		if f != nil {
			f.sync()
		} else {
			d.syncDir(c.path)
		}
	case "rename":
		d.change(nameChange{path: c.second, gone: c.path, file: f})
	case "link":
		d.change(nameChange{path: c.second, file: f})
	case "unlink":
		if f != nil {
			d.change(nameChange{path: c.path})
		}
	}
}

const tracedCalls = "openat,pwrite64,write,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,link,linkat"

var (
	wholeCall   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\d+)`)
	beginOfCall = regexp.MustCompile(`^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$`)
	endOfCall   = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>.*\) += (-?\d+)`)
	quoted      = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
	ofDescr     = regexp.MustCompile(`^(\d+)<((?:\\x[0-9a-f]{2})*)>`)
)

// record runs one process of the scenario under strace and gives its calls on files below root. What it prints is among
// them, as writes to the path "stdout".
func record(t *testing.T, root string, args ...string) []*call {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("this test records system calls: apt-get install strace")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(fastDir(t), "trace")
	cmd := exec.CommandContext(t.Context(), "strace", "-f", "-qq", "-xx", "-y", "-s", "16777216", "-e", "signal=none", "-e", "trace="+tracedCalls, "-o", trace, exe, "-test.run=none") //nolint:gosec // it is this test itself
	cmd.Env = append(os.Environ(), childEnv+"=record", childArgs+"="+strings.Join(args, "\n"))
	cmd.Stderr = t.Output()
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("the recorded process: %v: %s", err, out)
	}
	return parseTrace(t, trace, root)
}

func parseTrace(t *testing.T, path, root string) []*call {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	var calls []*call
	begun := map[string]*call{}
	add := func(c *call, result string) {
		if c != nil && !strings.HasPrefix(result, "-") {
			calls = append(calls, c)
		}
	}
	lines := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return calls
		}
		line = strings.TrimSuffix(line, "\n")
		if m := wholeCall.FindStringSubmatch(line); m != nil {
			add(parseCall(m[2], m[3], root), m[4])
		} else if m := beginOfCall.FindStringSubmatch(line); m != nil {
			c := parseCall(m[2], m[3], root)
			if c != nil && (c.name == "pwrite64" || c.name == "write") && c.path != "stdout" {
				// It may have reached the disk as soon as it began; a sync counts when it has ended.
				calls = append(calls, c)
				c = nil
			}
			begun[m[1]+m[2]] = c
		} else if m := endOfCall.FindStringSubmatch(line); m != nil {
			add(begun[m[1]+m[2]], m[3])
		}
	}
}

func unhex(s string) string {
	b, _ := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	return string(b)
}

// parseCall reads the arguments of a call; nil for one that has nothing to do with the files below root.
func parseCall(name, args, root string) *call {
	c := &call{name: name}
	var texts []string
	for _, m := range quoted.FindAllStringSubmatch(args, 2) {
		texts = append(texts, unhex(m[1]))
	}
	numbers := strings.Split(args, ", ")
	switch name {
	case "openat":
		c.path = texts[0]
		c.create, c.trunc = strings.Contains(args, "O_CREAT"), strings.Contains(args, "O_TRUNC")
	case "rename", "renameat", "renameat2":
		c.name, c.path, c.second = "rename", texts[0], texts[1]
	case "link", "linkat":
		c.name, c.path, c.second = "link", texts[0], texts[1]
	case "unlink", "unlinkat":
		c.name, c.path = "unlink", texts[0]
	default:
		m := ofDescr.FindStringSubmatch(args)
		if m == nil {
			return nil
		}
		c.path = unhex(m[2])
		if m[1] == "1" {
			c.path = "stdout"
		}
		if name == "pwrite64" || name == "ftruncate" {
			c.at, _ = strconv.Atoi(numbers[len(numbers)-1])
		}
		if len(texts) > 0 {
			c.data = []byte(texts[0])
		}
	}
	if c.path != "stdout" && c.path != root && !strings.HasPrefix(c.path, root+"/") {
		return nil
	}
	return c
}

// scenario is the process that is recorded: two flows commit by turns, some records are acknowledged, and it ends in the
// middle of things or cleanly. Each commit that was acknowledged to a flow is printed.
func scenario(dir, seedText, commitsText, ending string) error {
	base, _ := strconv.ParseUint(seedText, 10, 64)
	commits, _ := strconv.Atoi(commitsText)
	random := rand.New(rand.NewPCG(base, 7)) //nolint:gosec // test data
	s := stage.Settings{Dir: dir, MinFreeBytes: 1, Owner: "agent-1"}
	stage.SmallSegments(&s, 192<<10)
	stage.JournalBytes(&s, 96<<10)
	ctx := context.Background()
	st, err := stage.Open(ctx, s)
	if err != nil {
		return err
	}
	fmt.Println("open")
	for i := range commits {
		flow := fmt.Sprint("flow", random.IntN(2))
		c, n, err := nextPowerCommit(ctx, st, random, flow)
		if err != nil {
			return err
		}
		last, err := st.Commit(ctx, c)
		if err != nil {
			return err
		}
		fmt.Println("done", flow, n, last, len(c.Insights))
		if i%9 == 8 {
			if err := st.Acknowledge(ctx, last-min(last, uint64(random.IntN(200)))); err != nil { //nolint:gosec // small
				return err
			}
		}
	}
	if ending == "clean" {
		return st.Close()
	}
	os.Exit(0)
	return nil
}

// nextPowerCommit makes the checkpoint that follows the flow's last. n is how many insights the flow has made by then.
func nextPowerCommit(ctx context.Context, st *stage.Stage, random *rand.Rand, flow string) (c stage.Checkpoint, n uint64, err error) {
	state, err := st.LoadFlow(ctx, flow)
	if err != nil {
		return c, 0, err
	}
	if cursor := state.Cursors["source"]; cursor != nil {
		n = binary.BigEndian.Uint64(cursor)
	}
	c = stage.Checkpoint{Flow: flow, Number: state.Number + 1}
	for range random.IntN(12) {
		n++
		c.Insights = append(c.Insights, powerPayload(flow, n))
	}
	cursor := binary.BigEndian.AppendUint64(nil, n)
	c.Cursors = map[string][]byte{"source": cursor}
	c.Changes = []stage.Change{
		{Step: "count", Key: "all", Value: cursor},
		{Step: "count", Key: fmt.Sprint("some", random.IntN(40)), Value: bytes.Repeat(cursor, random.IntN(60))},
	}
	return c, n, nil
}

// powerPayload is the same for the same insight.
func powerPayload(flow string, n uint64) []byte {
	return fmt.Appendf(nil, "%s %d %s", flow, n, strings.Repeat("x", int(n*7919%900)))
}

// told is what the processes were told to be durable by a moment.
type told struct {
	cursors map[string]uint64
	last    uint64
	// acknowledged bounds what may be gone; records are by sequence.
	records map[uint64]string
	opened  bool
}

// hear takes in a line that a process printed.
func (k *told) hear(t *testing.T, line string) {
	t.Helper()
	if line == "open" {
		k.opened = true
		return
	}
	var flow string
	var n, last, count uint64
	if _, err := fmt.Sscanf(line, "done %s %d %d %d", &flow, &n, &last, &count); err != nil {
		t.Fatalf("the process says %q", line)
	}
	k.cursors[flow] = n
	k.last = max(k.last, last)
	for i := range count {
		k.records[last-i] = string(powerPayload(flow, n-i))
	}
}

// TestFaultPowerCutsLoseNothing opens what a disk may hold after a power cut at a random moment.
func TestFaultPowerCutsLoseNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the calls are recorded by strace, which is Linux's")
	}
	images := 200
	if *long {
		images = 10_000
	}
	images = cmp.Or(*count, images)
	base := cmp.Or(*seed, uint64(time.Now().UnixNano()))
	t.Logf("seed %d", base)
	root := fastDir(t)
	dir := filepath.Join(root, "stage")
	var calls []*call
	for i, ending := range []string{"unclean", "clean", "unclean", "unclean", "clean"} {
		calls = append(calls, record(t, root, dir, strconv.FormatUint(base+uint64(i), 10), "40", ending)...)
	}
	random := rand.New(rand.NewPCG(base, 1)) //nolint:gosec // test data
	cuts := make([]int, images)
	for i := range cuts {
		cuts[i] = random.IntN(len(calls) + 1)
		if i%4 == 0 {
			cuts[i] = random.IntN(80) // the first start
		}
	}
	slices.Sort(cuts)
	d := &disk{now: map[string]*diskFile{}, kept: map[string]*diskFile{}}
	known := &told{cursors: map[string]uint64{}, records: map[uint64]string{}}
	at, inFirst := 0, 0
	for i, cut := range cuts {
		for ; at < cut; at++ {
			if c := calls[at]; c.path == "stdout" {
				for line := range strings.Lines(string(c.data)) {
					known.hear(t, strings.TrimSuffix(line, "\n"))
				}
			} else {
				d.play(c)
			}
		}
		if !known.opened {
			inFirst++
		}
		where := filepath.Join(root, "image")
		restore(t, d.image(random), root, where)
		known.check(t, filepath.Join(where, "stage"))
		if t.Failed() {
			t.Fatalf("that was image %d, behind call %d of %d: %s %s; seed %d", i, cut, len(calls), calls[max(cut, 1)-1].name, calls[max(cut, 1)-1].path, base)
		}
	}
	t.Logf("%d images of %d recorded calls, %d of them during the first start: 0 acknowledged lost, 0 doubled, 0 that do not open", images, len(calls), inFirst)
}

// restore writes an image to the directory where, in the place of root.
func restore(t *testing.T, files map[string][]byte, root, where string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(where), os.MkdirAll(filepath.Join(where, "stage"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for path, b := range files {
		name, err := filepath.Rel(root, path)
		if err == nil {
			err = os.WriteFile(filepath.Join(where, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// check opens an image and compares it with what was told.
func (k *told) check(t *testing.T, dir string) {
	t.Helper()
	s := stage.Settings{Dir: dir, MinFreeBytes: 1, Owner: "agent-1"}
	stage.SmallSegments(&s, 192<<10)
	stage.JournalBytes(&s, 96<<10)
	st, err := stage.Open(t.Context(), s)
	if err != nil {
		t.Errorf("Open: %v", err)
		return
	}
	stats := st.Stats()
	if stats.Produced < k.last || stats.Lost != 0 || stats.SetAside != 0 || stats.Acknowledged > k.last+1 {
		t.Errorf("told was %d, and the stage is at %+v", k.last, stats)
	}
	newest := map[string]uint64{}
	for _, r := range readAll(t, st, stats.Acknowledged) {
		var flow string
		var n uint64
		if _, err := fmt.Sscan(string(r.Payload), &flow, &n); err != nil || string(r.Payload) != string(powerPayload(flow, n)) {
			t.Errorf("record %d is %.40q", r.Seq, r.Payload)
			break
		}
		if want := k.records[r.Seq]; want != "" && want != string(r.Payload) {
			t.Errorf("record %d is %.20q and was %.20q", r.Seq, r.Payload, want)
		}
		if before, seen := newest[flow]; seen && n != before+1 {
			t.Errorf("record %d is insight %d of %s behind %d", r.Seq, n, flow, before)
		}
		newest[flow] = n
	}
	for _, flow := range []string{"flow0", "flow1"} {
		state, err := st.LoadFlow(t.Context(), flow)
		if err != nil {
			t.Errorf("LoadFlow: %v", err)
			continue
		}
		cursor := uint64(0)
		if c := state.Cursors["source"]; c != nil {
			cursor = binary.BigEndian.Uint64(c)
		}
		if cursor < k.cursors[flow] || newest[flow] != 0 && newest[flow] != cursor || cursor != 0 && string(state.Operators["count"]["all"]) != string(state.Cursors["source"]) {
			t.Errorf("%s was told %d, its cursor is at %d and the outbox at %d", flow, k.cursors[flow], cursor, newest[flow])
		}
	}
	// Life goes on.
	c, _, err := nextPowerCommit(t.Context(), st, rand.New(rand.NewPCG(1, 1)), "flow0") //nolint:gosec // test data
	if err == nil {
		_, err = st.Commit(t.Context(), c)
	}
	if err = errors.Join(err, st.Close()); err != nil {
		t.Errorf("a further commit: %v", err)
	}
}
