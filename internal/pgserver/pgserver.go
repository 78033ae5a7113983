// Package pgserver runs a PostgreSQL server of this machine's own binaries, for one program's use.
//
// It listens on a Unix socket alone. It creates no roles beside the superuser and no databases: that is its users'
// business (the embedded default of the control plane, and the tests). A Server is safe for concurrent use once it runs.
package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/backoff"
)

// Superuser is the name of the role that initdb makes. It is for setting up roles and databases only.
const Superuser = "outfeed_super"

// port names the socket file; nothing listens on TCP.
const port = "5432"

// stopTimeout is how long a fast shutdown may take before the server is stopped at once.
const stopTimeout = 30 * time.Second

// Settings says where a server lives.
type Settings struct {
	// Dir holds the cluster (Dir/pgdata), the socket and the server's log. It is made when missing.
	Dir string
	// Parameters are server settings beside the ones that this package needs, like "fsync": "off".
	Parameters map[string]string
	Logger     *slog.Logger
}

// Server is a PostgreSQL server that belongs to this process.
type Server struct {
	dir, data, socket string
	parameters        map[string]string
	log               *slog.Logger
	bin               binaries
	account           account
}

// New prepares a server. It looks at nothing before Run.
func New(s Settings) (*Server, error) {
	dir, err := filepath.Abs(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("find the absolute path of %s: %w", s.Dir, err)
	}
	return &Server{
		dir: dir, data: filepath.Join(dir, "pgdata"), socket: socketDir(dir), parameters: s.Parameters, log: s.Logger,
	}, nil
}

// maxSocketPath leaves room in the 107 bytes that a socket's address can have for the file's name.
const maxSocketPath = 107 - len("/.s.PGSQL.5432.lock")

// socketDir is where the socket goes: beside the data, or, where that path is too long for a socket, in the temporary folder.
func socketDir(dir string) string {
	d := filepath.Join(dir, "socket")
	if len(d) <= maxSocketPath {
		return d
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("outfeed-%x", fnv64(dir)))
}

// URL is the address of a database for a role. There is no password: the server knows its callers by their account.
func (s *Server) URL(role, database string) string {
	q := url.Values{"host": {s.socket}, "port": {port}, "user": {role}}
	return "postgres:///" + url.PathEscape(database) + "?" + q.Encode()
}

// firstStart is how long a server that has never become ready is tried before Run gives up. After a kill of server and
// parent it can take seconds until the system has forgotten the old one's process id, and a new one refuses to start.
const firstStart = time.Minute

// Run makes the cluster if there is none, starts the server, calls ready once it accepts connections, and starts it
// again whenever it ends unexpectedly. When ctx ends it stops the server and returns nil.
func (s *Server) Run(ctx context.Context, ready func()) error {
	var err error
	if s.bin, err = findBinaries(ctx); err != nil {
		return err
	}
	if s.account, err = runAs(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the private PostgreSQL: %w", err)
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	defer s.removeSocket()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	// After a kill the new server must wait until the last process of the old one is gone.
	wait := backoff.Backoff{Min: 200 * time.Millisecond, Max: 3 * time.Second}
	wasReady, began := false, time.Now()
	for {
		err := s.serve(ctx, func() {
			wait.Reset()
			if !wasReady {
				wasReady = true
				ready()
			}
		})
		if ctx.Err() != nil {
			return nil
		}
		if !wasReady && time.Since(began) > firstStart {
			return fmt.Errorf("the private PostgreSQL does not start (%w); its log is %s", err, s.logFile())
		}
		s.log.WarnContext(ctx, "private postgresql ended and is started again", "error", err)
		if wait.Wait(ctx) != nil {
			return nil
		}
	}
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "postgresql.log") }

// prepare makes the folders and the cluster.
func (s *Server) prepare(ctx context.Context) error {
	for _, d := range []string{s.dir, s.socket} {
		if err := s.ownFolder(d); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(s.data, "PG_VERSION")); err == nil {
		return s.stopLeftover(ctx)
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look at the private PostgreSQL's data: %w", err)
	}
	return s.initdb(ctx)
}

// ownFolder makes a folder for the server's account alone. The socket's may lie in the temporary folder, where somebody
// else could have put something of that name.
func (s *Server) ownFolder(d string) error {
	if err := os.MkdirAll(d, 0o700); err != nil {
		return fmt.Errorf("make the folder of the private PostgreSQL: %w", err)
	}
	if info, err := os.Lstat(d); err != nil || !info.IsDir() {
		return errors.Join(fmt.Errorf("%s must be a folder of the private PostgreSQL's own: remove what is there", d), err)
	}
	if err := os.Chmod(d, 0o700); err != nil { //nolint:gosec // a folder must be entered
		return fmt.Errorf("keep %s to the private PostgreSQL: %w", d, err)
	}
	return s.account.own(d)
}

// removeSocket removes the socket's folder where it does not lie with the data.
func (s *Server) removeSocket() {
	if !strings.HasPrefix(s.socket, s.dir) {
		_ = os.RemoveAll(s.socket) // the next start makes it anew, and says what is wrong with it
	}
}

// initdb makes the cluster under another name first, so that a half-made one is never taken for a whole one.
func (s *Server) initdb(ctx context.Context) error {
	half := s.data + ".new"
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("remove a half-made cluster: %w", err)
	}
	err := s.command(ctx, s.bin.initdb, "-D", half, "-U", Superuser, "-A", "peer", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions")
	if err != nil {
		return fmt.Errorf("make the private PostgreSQL's cluster in %s: %w", s.dir, err)
	}
	if err := s.configure(half); err != nil {
		return err
	}
	if err := os.Rename(half, s.data); err != nil {
		return fmt.Errorf("put the new cluster in place: %w", err)
	}
	return nil
}

// configure lets this process's account, and no other, connect as any role.
func (s *Server) configure(data string) error {
	names := []string{s.account.name}
	if me, err := user.Current(); err == nil && me.Username != s.account.name {
		names = append(names, me.Username)
	}
	var ident strings.Builder
	for _, n := range names {
		fmt.Fprintf(&ident, "outfeed %q /^(.*)$\n", n)
	}
	files := map[string]string{
		"pg_ident.conf": ident.String(),
		"pg_hba.conf":   "local all all peer map=outfeed\n",
	}
	if s.bin.major < 16 {
		// Before 16 a map cannot say "any role", so the roles that this project has are listed.
		files["pg_ident.conf"] = identFor(names, Superuser, "outfeed_owner", "outfeed_app", "outfeed_mes")
	}
	for name, text := range files {
		path := filepath.Join(data, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure the private PostgreSQL: %w", err)
		}
		if err := s.account.own(path); err != nil {
			return err
		}
	}
	return nil
}

func identFor(accounts []string, roles ...string) string {
	var b strings.Builder
	for _, a := range accounts {
		for _, r := range roles {
			fmt.Fprintf(&b, "outfeed %q %q\n", a, r)
		}
	}
	return b.String()
}

// stopLeftover stops the server that a killed parent has left behind, which would hold the data otherwise.
func (s *Server) stopLeftover(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a PostgreSQL left behind: %w", err)
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(first)))
	if err != nil {
		return fmt.Errorf("%s holds no process id: remove it if no PostgreSQL runs on this data: %w", s.data+"/postmaster.pid", err)
	}
	if !isPostmaster(pid, s.bin.postgres) {
		return nil
	}
	s.log.InfoContext(ctx, "stopping a private postgresql that was left behind", "data", s.data)
	if err := s.command(ctx, s.bin.pgctl, "stop", "-D", s.data, "-m", "fast", "-w", "-t", "60"); err != nil {
		return fmt.Errorf("stop the PostgreSQL that was left behind in %s: %w", s.data, err)
	}
	return nil
}

// serve runs the server once, until it ends or ctx does.
func (s *Server) serve(ctx context.Context, ready func()) error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the private PostgreSQL's log: %w", err)
	}
	defer log.Close() //nolint:errcheck // only the child writes to it
	p, err := s.start(log)
	if err != nil {
		return err
	}
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { defer cancel(); <-p.ended }()
	if err := s.waitReady(waitCtx); err != nil {
		p.stop(s.log)
		return errors.Join(err, p.err)
	}
	ready()
	<-waitCtx.Done()
	if ctx.Err() == nil {
		return fmt.Errorf("postgres ended: %w", errors.Join(p.err, errUnexpected))
	}
	p.stop(s.log)
	return nil
}

var errUnexpected = errors.New("it was not asked to")

// waitReady asks pg_isready until it says yes.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.command(ctx, s.bin.pgisready, "-q", "-h", s.socket, "-p", port, "-U", Superuser, "-d", "postgres") == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the private PostgreSQL did not become ready; its log is %s: %w", s.logFile(), context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// command runs one of PostgreSQL's programs as the server's account and gives what it said when it failed.
func (s *Server) command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the programs that findBinaries found
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	cmd.Dir, cmd.Env = "/", s.account.environment()
	s.account.apply(cmd)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(said.String()))
	}
	return nil
}

// arguments are postgres's own: no TCP, a socket for its account, and what the user of the package asked for.
func (s *Server) arguments() []string {
	args := []string{"-D", s.data, "-k", s.socket, "-p", port, "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"}
	names := make([]string, 0, len(s.parameters))
	for n := range s.parameters {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		args = append(args, "-c", n+"="+s.parameters[n])
	}
	return args
}
