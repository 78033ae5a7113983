package agent

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram lets go of the pages of the program itself. Much of it is needed at the start alone; what is needed again
// comes back from the system's cache at once. The system does the same when memory is short, but until then the pages count
// as the process's memory.
func unmapProgram() {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return // without the proc file system the pages stay
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range programPages(smaps, path) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED) // a hint
	}
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// programPages finds where the file is mapped and nothing but the file is seen: it cannot be written there, and no page of it
// was ever changed.
func programPages(smaps []byte, path string) (list []mapping) {
	var at mapping
	inFile := false
	for lines := bufio.NewScanner(bytes.NewReader(smaps)); lines.Scan(); {
		line := lines.Text()
		var m mapping
		var rights string
		var changed uint64
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &m.start, &m.end, &rights); n == 3 {
			at, inFile = m, strings.HasSuffix(line, " "+path) && (rights == "r-xp" || rights == "r--p")
			continue
		}
		if n, _ := fmt.Sscanf(line, "Anonymous: %d kB", &changed); n == 1 && inFile && changed == 0 {
			list = append(list, at)
		}
	}
	return list
}
