package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// long is set by make faults: the tests of faults then go on as long as the figures that they hold ask for.
var (
	long = flag.Bool("long", false, "run the tests of faults at length")
	// pictures are of states that other tests bring about: with -artifacts they are kept.
	pictures = flag.Bool("pictures", false, "look at the agent's page of the dashboard in every state that a test brings about")
	seed     = flag.Uint64("seed", 0, "what random faults begin with, as a test has printed it; 0 for another each time")
)

// random is where a test's random faults come from. The test prints the seed, so that -seed repeats it.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	s := *seed
	if s == 0 {
		s = rand.Uint64() //nolint:gosec // nothing secret
	}
	t.Logf("-seed %d repeats this", s)
	return rand.New(rand.NewPCG(s, 0)) //nolint:gosec // nothing secret
}

// goal is a time that something may take: at length the goal itself, in short with room for a machine that does much else.
// The tests print what it took.
func goal(limit time.Duration) time.Duration {
	if *long {
		return limit
	}
	return limit + 20*time.Second
}

// programs is the folder of the project's programs, which are built when a test first needs one.
var programs folder

type folder struct {
	dir   string
	once  sync.Once
	error error
}

// build builds the programs at its first call.
func (f *folder) build() error {
	f.once.Do(func() { f.error = buildPrograms(f.dir) })
	return f.error
}

// buildPrograms builds the programs into a folder, with more options if given.
func buildPrograms(dir string, options ...string) error {
	args := append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", dir}, options...)
	args = append(args, "./agent/cmd/outfeed-agent", "./controlplane/cmd/outfeed-controlplane", "./controlplane/cmd/outfeed")
	c := exec.Command("go", args...) //nolint:gosec,noctx // the project itself; the test's own time limit bounds it
	c.Dir = filepath.Join("..", "..")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// atOnce is how many short tests run at the same time, unless -parallel says otherwise: they mostly wait.
const atOnce = "6"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given && !*long {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	var err error
	if programs.dir, err = os.MkdirTemp("", "outfeed-programs"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(programs.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	return m.Run()
}
