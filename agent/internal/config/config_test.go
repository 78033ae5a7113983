package config_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/config"
)

func none(string) (string, bool) { return "", false }

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEnvironmentWinsOverFile(t *testing.T) {
	t.Parallel()
	path := write(t, "data_dir: /from/file\nlisten: 127.0.0.1:9464\nlog_level: debug\nproxy: http://me:hush@proxy:3128\n")
	c, err := config.Load(path, func(name string) (string, bool) { return "/from/env", name == "OUTFEED_AGENT_DATA_DIR" })
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != "/from/env" || c.Listen != "127.0.0.1:9464" || c.LogLevel != slog.LevelDebug {
		t.Errorf("got %+v", c)
	}
	if c.Proxy.Reveal() != "http://me:hush@proxy:3128" { //nolint:gosec // a password made up for this test
		t.Error("the proxy was not read")
	}
	if printed := fmt.Sprintf("%+v %#v", c, c); strings.Contains(printed, "hush") {
		t.Errorf("printing the configuration shows a secret: %s", printed)
	}
}

func TestAnAmountOfMemoryHasAUnit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.Bytes{
		"512MB": 512 << 20, "2GB": 2 << 30, "1 GiB": 1 << 30, "65536kb": 64 << 20, "134217728B": 128 << 20,
	} {
		c, err := config.Load("", func(name string) (string, bool) { return text, name == "OUTFEED_AGENT_MEMORY_LIMIT" })
		if err != nil || c.MemoryLimit != want {
			t.Errorf("%s gives %v and %v", text, c.MemoryLimit, err)
		}
		var again config.Bytes
		if err := again.Set(want.String()); err != nil || again != want {
			t.Errorf("%v is written %s and reads as %v, %v", int64(want), want, again, err)
		}
	}
}

func TestAnEmptyFileIsTheDefault(t *testing.T) {
	t.Parallel()
	c, err := config.Load(write(t, "# nothing set\n"), none)
	if err != nil {
		t.Fatal(err)
	}
	if c != config.Default() {
		t.Errorf("got %+v, want the default", c)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":    {"data_dri: /x\n", "data_dri"},
		"open port":      {"listen: 0.0.0.0:9464\n", "opens no port"},
		"log format":     {"log_format: xml\n", "json or text"},
		"writes":         {"writes: approve\n", "deny or allow"},
		"proxy":          {"proxy: proxy:3128\n", "has no http://"},
		"proxy password": {"proxy: 'http://me:hush#1@proxy:3128'\n", "must be written as %23"},
		"ca file":        {"ca_file: /does/not/exist.pem\n", "ca_file"},
		"memory unit":    {"memory_limit: 134217728\n", "write a whole number with a unit"},
		"memory word":    {"memory_limit: lots\n", "write a whole number with a unit"},
		"memory huge":    {"memory_limit: 99999999999GB\n", "write a whole number with a unit"},
		"little memory":  {"memory_limit: 10MB\n", "needs at least 48MB"},
		"empty data dir": {"data_dir: ''\n", "data_dir is empty"},
		"little staging": {"staging: {max_bytes: 1MB}\n", "needs at least 16MB"},
		"nothing free":   {"staging: {min_free: 0B}\n", "leave at least 1MB"},
		"age unit":       {"staging: {max_age: 30}\n", "write a whole number with a unit"},
		"age fraction":   {"staging: {max_age: 1.5d}\n", "write a whole number with a unit"},
		"age too long":   {"staging: {max_age: 99999999d}\n", "write a whole number with a unit"},
		"age too short":  {"staging: {max_age: 5s}\n", "at least 1m"},
		"when full":      {"staging: {when_full: drop}\n", "drop_oldest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(write(t, c.text), none)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("got %v, want something about %q and no password", err, c.want)
			}
		})
	}
}

func TestNoProxyMayBeSaid(t *testing.T) {
	t.Parallel()
	if c, err := config.Load(write(t, "proxy: none\n"), none); err != nil || c.Proxy.Reveal() != "none" {
		t.Errorf("got %v, %v", c.Proxy.Reveal(), err)
	}
}

func TestTheQuotasOfTheStaging(t *testing.T) {
	t.Parallel()
	path := write(t, "staging:\n  max_bytes: 2GB\n  max_age: 30d\n  when_full: drop_oldest\n")
	c, err := config.Load(path, func(name string) (string, bool) { return "128MB", name == "OUTFEED_AGENT_STAGING_MIN_FREE" })
	if err != nil {
		t.Fatal(err)
	}
	want := config.Staging{MaxBytes: 2 << 30, MaxAge: config.Age(30 * 24 * time.Hour), WhenFull: config.WhenFullDropOldest, MinFree: 128 << 20}
	if c.Staging != want || c.Staging.MaxAge.String() != "30d" {
		t.Errorf("got %+v, want %+v", c.Staging, want)
	}
}
