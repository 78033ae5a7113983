package controlplane

import (
	"errors"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

func TestTestsThatEndWithoutResults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ script, want string }{
		"out of memory": {"echo 'fatal error: runtime: out of memory' >&2; exit 2", "needed more memory than they may have"},
		"killed":        {"kill -9 $$", "give them fewer rows and shorter texts"},
		"another end":   {"echo 'Error: no such flow' >&2; exit 1", "could not be run"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newTester([]string{"/bin/sh", "-c", c.script}).TestFlow(t.Context(), "flow: f\n")
			var refused *fleet.Error
			if !errors.As(err, &refused) || refused.Code != fleet.Invalid || !strings.Contains(refused.Message, c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
