package stage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// smallDisk gives a folder on a tmpfs of its own, made with these options, such as size=24m.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	mount := t.TempDir()
	args := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	// The namespace lives as long as the cat in it, and is reached by its root.
	args = append(args, "sh", "-c", `mount -t tmpfs -o "$1" none "$0" && echo mounted && exec cat`, mount, options)
	c := exec.CommandContext(t.Context(), args[0], args[1:]...)
	c.Stderr = t.Output()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = c.Wait()
	})
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		t.Fatalf("no disk can be mounted here (%v): run the test as root, or allow user namespaces with: sysctl kernel.unprivileged_userns_clone=1", err)
	}
	return filepath.Join("/proc", strconv.Itoa(c.Process.Pid), "root", mount)
}

// fill writes until the disk takes no more.
func fill(t *testing.T, disk string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(disk, "fill"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // what it holds does not matter
	for size := 1 << 20; size > 0; size /= 16 {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
}

// crowd makes files until the disk takes no more of them.
func crowd(t *testing.T, disk string) {
	t.Helper()
	dir := filepath.Join(disk, "crowd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprint(time.Now().UnixNano(), n)), nil, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFullDisk(t *testing.T) {
	t.Parallel()
	for _, full := range []struct {
		name, options, says string
		fill                func(*testing.T, string)
		filler              string
	}{
		{"no bytes", "size=24m", "MiB left", fill, "fill"},
		{"no inodes", "size=64m,nr_inodes=64", "no more files", crowd, "crowd"},
	} {
		t.Run(full.name, func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, full.options)
			dir := filepath.Join(disk, "stage")
			c := startFaultChild(t, dir)
			c.begin(t)
			c.commits(t, 20)
			full.fill(t, disk)
			st := c.statsUntil(t, func(st stage.Stats) bool { return st.Blocked == faultFlows })
			// What the last commits freed is taken as well.
			full.fill(t, disk)
			if !strings.Contains(st.BlockedBy, full.says) && st.Degraded == "" {
				t.Errorf("the commits wait because %q", st.BlockedBy)
			}
			c.send("drain")
			c.await(t, "drained")
			if st := c.stats(t); st.WaitingRecords != 0 || st.Acknowledged != st.Produced {
				t.Errorf("on a full disk the outbox does not drain: %+v", st)
			}
			// Room comes back, the next time not before the process was killed and started again.
			empty(t, disk, full.filler)
			c.statsUntil(t, func(st stage.Stats) bool { return st.Blocked == 0 && st.Degraded == "" })
			c.commits(t, 20)
			full.fill(t, disk)
			c.statsUntil(t, func(st stage.Stats) bool { return st.Blocked == faultFlows })
			full.fill(t, disk)
			c.end(t, true)
			for _, kill := range []bool{false, true} {
				next := startFaultChild(t, dir)
				next.done, next.received, next.refused = c.done, c.received, c.refused
				c = next
				if kill {
					c.send("go")
					c.statsUntil(t, func(st stage.Stats) bool { return st.Blocked == faultFlows })
					c.saysHealed(t, 0)
					empty(t, disk, full.filler)
					c.commits(t, 20)
					c.saysHealed(t, strings.Count(c.said(t), "a commit to the staging area failed"))
				} else {
					c.statsUntil(t, func(st stage.Stats) bool { return st.WaitingRecords > 0 })
				}
				c.end(t, kill)
			}
			c.checkAfter(t, dir)
		})
	}
}

// said is the process's log.
func (c *faultChild) said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(c.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// saysHealed looks how often the log has told that the disk can be written again.
func (c *faultChild) saysHealed(t *testing.T, times int) {
	t.Helper()
	if n := strings.Count(c.said(t), "the staging area can be written again"); n != times {
		t.Errorf("the log tells %d times that the disk can be written again, want %d:\n%s", n, times, c.said(t))
	}
}

// empty makes room again.
func empty(t *testing.T, disk, filler string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(disk, filler)); err != nil {
		t.Fatal(err)
	}
}

func TestAFirstStartOnAFullDiskLeavesNothing(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "size=1m")
	fill(t, disk)
	dir := filepath.Join(disk, "stage")
	for range 2 {
		s := faultSettings(dir, nil)
		s.Owner = "agent"
		_, err := stage.Open(t.Context(), s)
		if err == nil || !strings.Contains(err.Error(), "make room") && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Open gives %v", err)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory is left behind: %v", err)
		}
	}
	empty(t, disk, "fill")
	st, err := stage.Open(t.Context(), faultSettings(dir, nil))
	if err != nil {
		t.Fatal(err)
	}
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 1, Insights: payloads(1, "p")})
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

// TestAFirstStartWithLittleRoom begins on disks that become full somewhere in the middle of it: it works, or leaves nothing.
func TestAFirstStartWithLittleRoom(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "size=2m")
	worked := 0
	for kib := 0; kib <= 256; kib += 4 {
		fill(t, disk)
		if err := os.Truncate(filepath.Join(disk, "fill"), int64(2<<20-kib<<10)); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(disk, "stage")
		st, err := stage.Open(t.Context(), stage.Settings{Dir: dir, MinFreeBytes: 1})
		if err == nil {
			worked++
			err = errors.Join(st.Close(), os.RemoveAll(dir))
			if err != nil {
				t.Errorf("with %d KiB: %v", kib, err)
			}
			continue
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("with %d KiB the directory is left behind: %v", kib, err)
			_ = os.RemoveAll(dir)
		}
	}
	if worked == 0 {
		t.Error("it never worked")
	}
}

// TestAFileSystemThatTurnsReadOnly lets ext4 find an error in itself while a process stages on it, as a dying disk does: it
// turns read-only under the open files. It needs a loop device, and so root.
func TestAFileSystemThatTurnsReadOnly(t *testing.T) {
	t.Parallel()
	if !*long {
		t.Skip("needs root and a loop device; run it with -long")
	}
	if os.Getuid() != 0 {
		t.Fatal("this test mounts an ext4 file system: run it as root")
	}
	base := t.TempDir()
	image, mount := filepath.Join(base, "image"), filepath.Join(base, "mount")
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput() //nolint:gosec // fixed words, and a file of the test
		if err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	run("truncate", "-s", "64M", image)
	run("mkfs.ext4", "-q", image)
	run("mount", "-o", "loop,errors=remount-ro", image, mount)
	t.Cleanup(func() { _ = exec.Command("umount", "--lazy", mount).Run() }) //nolint:noctx,gosec // the test's context has ended by then
	device := filepath.Base(run("findmnt", "--noheadings", "--output", "SOURCE", mount))

	dir := filepath.Join(mount, "stage")
	c := startFaultChild(t, dir)
	c.begin(t)
	c.commits(t, 50)
	if err := os.WriteFile(filepath.Join("/sys/fs/ext4", device, "trigger_fs_error"), []byte("a test\n"), 0o200); err != nil {
		t.Fatal(err)
	}
	st := c.statsUntil(t, func(st stage.Stats) bool { return st.Degraded != "" && st.Blocked == faultFlows })
	t.Logf("it is degraded: %s", st.Degraded)
	c.send("drain")
	if end := c.await(t, "drained "); end != strconv.FormatUint(st.Produced, 10) {
		t.Errorf("the outbox is read up to %s of %d", end, st.Produced)
	}
	c.quiet(t, 2*time.Second)
	c.end(t, true)
	// As a person would: the file system is checked and mounted again.
	run("umount", mount)
	out, err := exec.CommandContext(t.Context(), "fsck.ext4", "-y", image).CombinedOutput() //nolint:gosec // a file of the test
	if err != nil {
		t.Logf("fsck: %v: %s", err, out) // 1 says that it has mended something
	}
	run("mount", "-o", "loop", image, mount)
	c.checkAfter(t, dir)
	run("umount", mount)
}

// openOnDisk opens a stage that the test closes itself, because the small disk goes before the cleanup of a test.
func openOnDisk(t *testing.T, s stage.Settings) *stage.Stage {
	t.Helper()
	st, err := stage.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestTheRoomIsRightAfterAStartWithoutInodes starts on a disk that has room for no more files, and then makes some, while
// nothing commits.
func TestTheRoomIsRightAfterAStartWithoutInodes(t *testing.T) {
	t.Parallel()
	for _, filled := range []struct {
		name, options, filler string
		fill                  func(*testing.T, string)
	}{
		{"no inodes", "size=64m,nr_inodes=64", "crowd", crowd},
		{"no bytes", "size=8m", "fill", fill},
	} {
		t.Run(filled.name, func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, filled.options)
			s := settings(t, filepath.Join(disk, "stage"))
			s.MinFreeBytes = 1 << 20
			st := openOnDisk(t, s)
			commit(t, st, stage.Checkpoint{Flow: "f", Number: 1, Insights: payloads(1, "p")})
			if st.Stats().RoomBytes == 0 {
				t.Error("there is no room before anything has filled the disk")
			}
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
			filled.fill(t, disk)
			st = openOnDisk(t, s)
			if room := st.Stats().RoomBytes; room != 0 {
				t.Errorf("on a full disk there is room for %d bytes", room)
			}
			empty(t, disk, filled.filler)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			look := time.NewTicker(50 * time.Millisecond)
			defer look.Stop()
			for st.Stats().RoomBytes == 0 {
				select {
				case <-look.C:
				case <-ctx.Done():
					t.Fatalf("30 s after there was room again: %+v", st.Stats())
				}
			}
			commit(t, st, stage.Checkpoint{Flow: "f", Number: 2, Insights: payloads(1, "p")})
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestARefusedFirstStartLeavesNothing wants nothing of the folders that it has made on the way either, and those that were
// there to stay.
func TestARefusedFirstStartLeavesNothing(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "size=64m,nr_inodes=64")
	if err := os.MkdirAll(filepath.Join(disk, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(disk, "there", "a", "b", "stage")
	s := settings(t, deep)
	for name, refused := range map[string]struct {
		prepare, mend func()
		says          string
	}{
		"no inodes": {func() { crowd(t, disk) }, func() { empty(t, disk, "crowd") }, "make room"},
		"no bytes":  {func() { fill(t, disk) }, func() { empty(t, disk, "fill") }, "make room"},
	} {
		refused.prepare()
		s.MinFreeBytes = 1 << 20
		_, err := stage.Open(t.Context(), s)
		if err == nil || !strings.Contains(err.Error(), refused.says) || !strings.Contains(err.Error(), "--data-dir") {
			t.Errorf("%s: Open gives %v", name, err)
		}
		refused.mend()
		if entries, err := os.ReadDir(filepath.Join(disk, "there")); err != nil || len(entries) != 0 {
			t.Errorf("%s: it leaves %v, %v", name, entries, err)
		}
	}
	if err := openOnDisk(t, s).Close(); err != nil {
		t.Error(err)
	}
}

// TestAStartOnAFullDiskDoesNotSayThatItCanBeWritten kills a process, fills the disk, and lets the next take in what the journal
// has, which needs the room that was kept for that.
func TestAStartOnAFullDiskDoesNotSayThatItCanBeWritten(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "size=24m")
	dir := filepath.Join(disk, "stage")
	c := startFaultChild(t, dir)
	c.begin(t)
	c.commits(t, 20)
	c.end(t, true)
	fill(t, disk)
	next := startFaultChild(t, dir)
	next.done = c.done
	next.send("go")
	next.statsUntil(t, func(st stage.Stats) bool { return st.Blocked == faultFlows })
	if !strings.Contains(next.said(t), "a commit to the staging area failed") {
		t.Error("the start has found room for what the journal has, so nothing was tried")
	}
	next.saysHealed(t, 0)
	empty(t, disk, "fill")
	next.commits(t, 20)
	next.saysHealed(t, 1)
	next.end(t, false)
	next.checkAfter(t, dir)
}
