package main

import (
	"testing"
)

func TestExitCodes(t *testing.T) {
	t.Setenv("OUTFEED_DATA_DIR", t.TempDir())
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{}, exitOK},
		{[]string{"--help"}, exitOK},
		{[]string{"admin"}, exitOK},
		{[]string{"admin", "tenant"}, exitOK},
		{[]string{"srve"}, exitUsage},
		{[]string{"serve", "now"}, exitUsage},
		{[]string{"serve", "--port"}, exitUsage},
		{[]string{"migrate", "now"}, exitUsage},
		{[]string{"admin", "tennant"}, exitUsage},
		{[]string{"admin", "tenant", "make"}, exitUsage},
		{[]string{"admin", "tenant", "create", "x"}, exitUsage},
		{[]string{"admin", "tenant", "create", "--owner", "a@b.example"}, exitUsage},
		{[]string{"admin", "tenant", "create", "a", "b", "--owner", "a@b.example"}, exitUsage},
		{[]string{"keys"}, exitOK},
		{[]string{"keys", "show", "identity"}, exitUsage},
		{[]string{"keys", "replace"}, exitUsage},
		{[]string{"keys", "replace", "tls"}, exitUsage},
		{[]string{"keys", "show"}, exitFailed},
		{[]string{"keys", "replace", "identity"}, exitFailed},
		{[]string{"migrate"}, exitFailed},
		{[]string{"admin", "tenant", "create", "x", "--owner", "a@b.example"}, exitFailed},
	} {
		if got := run(t.Context(), c.args); got != c.want {
			t.Errorf("%q: exit code %d, want %d", c.args, got, c.want)
		}
	}
}
