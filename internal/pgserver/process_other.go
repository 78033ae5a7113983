//go:build !unix

package pgserver

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
)

// errPlatform says that a private PostgreSQL is for Linux; elsewhere the control plane wants a server that runs.
var errPlatform = errors.New("a private PostgreSQL needs Linux or another Unix: set OUTFEED_DATABASE_URL to a server that runs")

type account struct{ name string }

func runAs() (account, error) {
	if _, err := user.Current(); err != nil {
		return account{}, errors.Join(errPlatform, err)
	}
	return account{}, errPlatform
}

func (account) own(string) error { return nil }

func (account) environment() []string { return os.Environ() }

func (account) apply(*exec.Cmd) {}

type process struct {
	ended chan struct{}
	err   error
}

func (*Server) start(*os.File) (*process, error) { return nil, errPlatform }

func (*process) stop(*slog.Logger) {}

func isPostmaster(int, string) bool { return false }

func (*Server) lock() (func(), error) { return nil, errPlatform }
