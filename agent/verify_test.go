package agent

import (
	"slices"
	"testing"
)

func TestChildrenGetNoSecrets(t *testing.T) {
	t.Parallel()
	got := childEnv([]string{
		"PATH=/bin", "OUTFEED_AGENT_PROXY=http://u:hunter2@proxy", "HTTPS_PROXY=http://u:hunter2@proxy", "Path=C:\\", "SystemRoot=C:\\Windows", "NOVALUE",
	})
	if want := []string{"PATH=/bin", "Path=C:\\", "SystemRoot=C:\\Windows"}; !slices.Equal(got, want) {
		t.Errorf("a child gets %q, want %q", got, want)
	}
}
