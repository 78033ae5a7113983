//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// account is who the server runs as. PostgreSQL refuses to run as root, so root steps down.
type account struct {
	name     string
	stepDown bool
	uid, gid uint32
}

// runAs is this process's account, or for root the account named postgres or nobody.
func runAs() (account, error) {
	if os.Geteuid() != 0 {
		me, err := user.Current()
		if err != nil {
			return account{}, fmt.Errorf("find the account of this process: %w", err)
		}
		return account{name: me.Username}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if errors.Join(err1, err2) == nil {
			return account{name: name, stepDown: true, uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return account{}, errors.New("PostgreSQL refuses to run as root, and there is neither an account postgres nor nobody to step down to: run this as another user")
}

// own gives a file or folder to the account, which must be able to reach it.
func (a account) own(path string) error {
	if !a.stepDown {
		return nil
	}
	if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("give %s to the account %s: %w", path, a.name, err)
	}
	for d := filepath.Dir(path); ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return fmt.Errorf("look at %s: %w", d, err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode()&0o001 == 0 && st.Uid != a.uid {
			return fmt.Errorf("PostgreSQL runs as the account %s, which may not enter %s: choose a data folder elsewhere, or run this as a user that is not root", a.name, d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

func (a account) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
}

func (a account) apply(cmd *exec.Cmd) {
	if a.stepDown {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
	}
}

// process is a running postgres. ended is closed when it is gone, and err says how.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

// start runs postgres in a process group of its own, so that Ctrl-C reaches it through this process alone. Where the
// system can, it is stopped when this process is killed.
func (s *Server) start(log *os.File) (*process, error) {
	cmd := exec.Command(s.bin.postgres, s.arguments()...) //nolint:gosec,noctx // findBinaries found it, and it is stopped by stop, with the right signal
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.Env = log, log, "/", s.account.environment()
	s.account.apply(cmd)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	endWithParent(cmd.SysProcAttr)
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The signal at the parent's death is sent when the thread that started the child ends.
		runtime.LockOSThread()
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", s.bin.postgres, err)
	}
	return p, nil
}

// stop ends the server: fast first, at once when that takes too long.
func (p *process) stop(log *slog.Logger) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			log.Warn("cannot signal the private postgresql", "signal", sig.String(), "error", err)
		}
		t := time.NewTimer(stopTimeout)
		select {
		case <-p.ended:
			t.Stop()
			return
		case <-t.C:
			log.Warn("the private postgresql takes long to stop", "signal", sig.String())
		}
	}
	<-p.ended
}

// lock takes the folder for this process, so that no second one stops its server. The system gives it back when the
// process ends, however it does.
func (s *Server) lock() (unlock func(), err error) {
	path := filepath.Join(s.dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // in the server's own folder
	if err != nil {
		return nil, fmt.Errorf("take the folder of the private PostgreSQL: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, readErr := os.ReadFile(path) //nolint:gosec // in the server's own folder
		return nil, errors.Join(fmt.Errorf("%s is in use by process %s: stop it, or choose another data folder", s.dir, holder), readErr, f.Close())
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid()))); err != nil {
		return nil, errors.Join(fmt.Errorf("take the folder of the private PostgreSQL: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err //nolint:wrapcheck // lock says what was being done
}

// isPostmaster says whether that process lives and is a postgres. One that has ended and that nobody has waited for is
// not: it has no program any more.
func isPostmaster(pid int, postgres string) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	switch {
	case err == nil:
		return filepath.Base(exe) == filepath.Base(postgres)
	case errors.Is(err, os.ErrNotExist):
		_, noProc := os.Stat("/proc/self")
		return noProc != nil
	default:
		return true
	}
}
