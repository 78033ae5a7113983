package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// ErrNoBinaries says that this machine has no PostgreSQL that fits, and what to do.
var ErrNoBinaries = errors.New("no PostgreSQL 15 or newer in PATH or /usr/lib/postgresql/*/bin: install it (Debian: apt-get install postgresql), or set OUTFEED_DATABASE_URL to a server that runs")

// oldest is the first major version that the schema needs.
const oldest = 15

// binaries are the programs of one installation.
type binaries struct {
	major                              int
	postgres, initdb, pgctl, pgisready string
}

// findBinaries takes the newest installation of PATH and of the places where Debian, Red Hat and Windows put it.
func findBinaries(ctx context.Context) (binaries, error) {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", `C:\Program Files\PostgreSQL\*\bin`} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			return binaries{}, fmt.Errorf("look for PostgreSQL: %w", err)
		}
		dirs = append(dirs, more...)
	}
	var found []binaries
	for _, d := range dirs {
		if b, ok := binariesIn(ctx, d); ok {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return binaries{}, ErrNoBinaries
	}
	return slices.MaxFunc(found, func(a, b binaries) int { return cmp.Compare(a.major, b.major) }), nil
}

var versionPattern = regexp.MustCompile(`PostgreSQL\) (\d+)`)

// binariesIn looks for a whole installation in a folder and asks it for its version.
func binariesIn(ctx context.Context, dir string) (binaries, bool) {
	name := func(n string) string {
		if runtime.GOOS == "windows" {
			n += ".exe"
		}
		return filepath.Join(dir, n)
	}
	b := binaries{postgres: name("postgres"), initdb: name("initdb"), pgctl: name("pg_ctl"), pgisready: name("pg_isready")}
	for _, p := range []string{b.postgres, b.initdb, b.pgctl, b.pgisready} {
		if info, err := os.Stat(p); err != nil || info.IsDir() {
			return binaries{}, false
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, b.postgres, "--version").Output() //nolint:gosec // a program named postgres in a folder of PATH
	if err != nil {
		return binaries{}, false
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return binaries{}, false
	}
	b.major, err = strconv.Atoi(string(m[1]))
	return b, err == nil && b.major >= oldest
}

// fnv64 shortens a path to a name.
func fnv64(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}
