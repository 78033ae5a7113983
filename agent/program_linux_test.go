package agent

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestOnlyUnchangedPagesOfTheProgramAreLetGoOf reads what Linux says of mappings.
func TestOnlyUnchangedPagesOfTheProgramAreLetGoOf(t *testing.T) {
	t.Parallel()
	const smaps = `00400000-00500000 r-xp 00000000 08:01 77                         /opt/the agent/outfeed-agent
Size:               1024 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00500000-00600000 r--p 00100000 08:01 77                         /opt/the agent/outfeed-agent
Anonymous:             4 kB
00600000-00700000 r--p 00200000 08:01 77                         /opt/the agent/outfeed-agent
Anonymous:             0 kB
00700000-00800000 rw-p 00300000 08:01 77                         /opt/the agent/outfeed-agent
Anonymous:             0 kB
7f0000000000-7f0000100000 r--s 00000000 08:01 78                 /var/lib/outfeed/stage/state.db
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:          4096 kB
`
	want := []mapping{{0x400000, 0x500000}, {0x600000, 0x700000}}
	if got := programPages(strings.NewReader(smaps), "/opt/the agent/outfeed-agent"); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	// The test's own pages come back.
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	if len(programPages(bytes.NewReader(own), path)) == 0 {
		t.Errorf("the program %s is mapped nowhere:\n%s", path, own)
	}
	for range 3 {
		unmap(findProgram())
	}
}
