package agent

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// findProgram finds where the pages of the program itself are.
func findProgram() []mapping {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil // without the proc file system the pages stay
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer func() { _ = smaps.Close() }() // nothing was written
	return programPages(smaps, path)
}

// unmap lets go of the pages of the program. Much of it is needed at the start alone; what is needed again comes back from the
// system's cache at once. The system does the same when memory is short, but until then the pages count as the process's
// memory.
func unmap(program []mapping) {
	for _, m := range program {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED) // a hint
	}
}

// programPages finds where the file is mapped and nothing but the file is seen: it cannot be written there, and no page of it
// was ever changed.
func programPages(smaps io.Reader, path string) (list []mapping) {
	var at mapping
	inFile, name := false, []byte(" "+path)
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		line := lines.Bytes()
		switch {
		case len(line) == 0:
		case line[0] < 'A' || line[0] > 'Z': // a range of addresses, unlike what is said of it
			if inFile = bytes.HasSuffix(line, name); inFile {
				var rights string
				n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &at.start, &at.end, &rights)
				inFile = n == 3 && (rights == "r-xp" || rights == "r--p")
			}
		case inFile && bytes.HasPrefix(line, []byte("Anonymous:")):
			var changed uint64
			if n, _ := fmt.Sscanf(lines.Text(), "Anonymous: %d kB", &changed); n == 1 && changed == 0 {
				list = append(list, at)
			}
			inFile = false
		}
	}
	return list
}
