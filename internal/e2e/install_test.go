package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/pgserver"
)

// installGuide is the text of docs/install.md.
func installGuide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// guideLine is the one line of the guide that begins so.
func guideLine(t *testing.T, begin string) string {
	t.Helper()
	var found []string
	for line := range strings.Lines(installGuide(t)) {
		if strings.HasPrefix(line, begin) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	if len(found) != 1 {
		t.Fatalf("the guide has %d lines that begin with %q", len(found), begin)
	}
	return found[0]
}

// shell runs a command of the guide, with what its names stand for.
func (s *site) shell(command string, names ...string) []byte {
	s.t.Helper()
	path := "PATH=" + filepath.Dir(bin(s.t, "outfeed")) + ":" + os.Getenv("PATH")
	return s.command(append(s.controlPlaneEnv(), path), nil, "sh", "-c", "cd '"+s.dir+"' && "+strings.NewReplacer(names...).Replace(command))
}

// TestInstallGuideDataDirectory compares the guide's table with what a start makes, then takes a backup with the guide's
// commands, loses the data directory, restores it, and has the agent connect.
func TestInstallGuideDataDirectory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (0\\d{3}) \\|").FindAllStringSubmatch(installGuide(t), -1)
	told := map[string]bool{}
	for _, row := range rows {
		told[strings.Split(row[1], "/")[0]] = true
		info, err := os.Stat(s.path("cp", row[1]))
		if err != nil {
			t.Errorf("the guide tells of %s: %v", row[1], err)
			continue
		}
		if mode := fmt.Sprintf("%04o", info.Mode().Perm()); mode != row[2] {
			t.Errorf("%s has mode %s, and the guide says %s", row[1], mode, row[2])
		}
	}
	entries, err := os.ReadDir(s.path("cp"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !told[e.Name()] {
			t.Errorf("%s lies in the data directory, and the guide does not tell of it", e.Name())
		}
	}

	s.controlPlane.stop()
	before := s.shownKeys()
	places := []string{"/var/lib", s.dir, "gz outfeed", "gz cp"}
	s.shell(guideLine(t, "tar -C /var/lib -czpf outfeed-backup"), places...)
	if err := os.RemoveAll(s.path("cp")); err != nil {
		t.Fatal(err)
	}
	s.shell(guideLine(t, "tar -C /var/lib --same-owner"), places...)
	for name, fingerprint := range s.shownKeys() {
		if fingerprint != before[name] {
			t.Errorf("%s was %s and is %s after a restore", name, before[name], fingerprint)
		}
	}
	s.startControlPlane()
	s.waitConnected()
}

// TestInstallGuideOwnPostgreSQL goes through the guide with a PostgreSQL of the operator's own: roles, migration, a backup of
// both, and a restore on another server and another machine.
func TestInstallGuideOwnPostgreSQL(t *testing.T) {
	t.Parallel()
	s, d := prepareSite(t), newDatabase(t)
	for _, sql := range []string{"CREATE ROLE outfeed_owner", "CREATE DATABASE outfeed OWNER"} {
		d.exec(t, strings.ReplaceAll(guideLine(t, sql), "'...'", "'secret'"))
	}
	names := func(d *database) []string {
		return []string{
			"postgres://outfeed_owner@db/outfeed", "'" + strings.Replace(d.server.URL("outfeed_owner", "outfeed"), "postgres:///", "postgres://outfeed_owner@/", 1) + "'",
			"postgres://postgres@db/outfeed", "'" + d.server.URL(pgserver.Superuser, "outfeed") + "'", "/var/lib/outfeed", s.path("cp"),
		}
	}
	if err := os.WriteFile(s.path("owner.password"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := s.shell(guideLine(t, "OUTFEED_MIGRATE_DATABASE_PASSWORD_FILE="), names(d)...); !strings.Contains(string(said), "up to date") {
		t.Errorf("migrate says %s", said)
	}
	s.controlPlaneExtra = []string{"OUTFEED_DATABASE_URL=" + d.server.URL("outfeed_app", "outfeed")}
	s.startControlPlane()
	s.createTenant()
	s.enrol(s.link.address)
	s.startAgent()
	s.waitConnected()
	s.controlPlane.stop()
	s.shell(guideLine(t, "tar -C /var/lib/outfeed"), names(d)...)
	s.shell(guideLine(t, "pg_dump"), names(d)...)

	fresh := newDatabase(t)
	fresh.exec(t, "CREATE ROLE outfeed_owner LOGIN CREATEROLE", "CREATE DATABASE outfeed OWNER outfeed_owner", "CREATE ROLE outfeed_app LOGIN", "CREATE ROLE outfeed_lookup NOLOGIN")
	s.shell(guideLine(t, "pg_restore"), names(fresh)...)
	// The certificate of the agent's outer connection is the operator's to keep; here it is the one that signs itself.
	if err := errors.Join(os.Rename(s.path("cp"), s.path("lost")), os.Mkdir(s.path("cp"), 0o711)); err != nil { //nolint:gosec // as the program makes it
		t.Fatal(err)
	}
	s.move(s.path("lost", "tls"), s.path("cp", "tls"))
	s.controlPlaneExtra = []string{"OUTFEED_DATABASE_URL=" + fresh.server.URL("outfeed_app", "outfeed")}
	s.wantSaid(s.refused(), "keys are missing")
	s.shell("tar -C /var/lib/outfeed -xzpf outfeed-keys.tar.gz", names(d)...)
	s.startControlPlane()
	s.waitConnected()
}

// TestInstallGuideConfiguration runs an agent with the guide's own configuration file and commands.
func TestInstallGuideConfiguration(t *testing.T) {
	t.Parallel()
	s := newControlPlane(t)
	_, text, _ := strings.Cut(installGuide(t), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	listen := freeAddress(t)
	s.agentConfig = strings.NewReplacer(
		"/var/lib/outfeed-agent", s.agentDir, "proxy: http://proxy.plant.example:3128", "proxy: none",
		"/etc/outfeed/plant-ca.pem", s.path("cp", "tls", "cert.pem"), "127.0.0.1:9464", listen,
	).Replace(text)
	config := s.agentDir + ".yaml"
	if err := os.WriteFile(config, []byte(s.agentConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	client := "OUTFEED_CONFIG='" + s.path("client.json") + "' "
	if err := os.WriteFile(s.path("key.txt"), []byte(s.apiKey), 0o600); err != nil {
		t.Fatal(err)
	}
	s.shell(client+guideLine(t, "outfeed login"), "https://outfeed.example.com", "http://"+s.api)
	s.shell(client + guideLine(t, "outfeed agent token"))
	s.shell(guideLine(t, "outfeed-agent enroll")+" --config '"+config+"'", "https://outfeed.example.com", "https://"+s.link.address)
	s.agent = start(t, s.agentLog(), nil, bin(t, "outfeed-agent"), "run", "--config", config)
	s.waitConnected()
	for _, page := range []string{"/healthz", "/readyz", "/metrics"} {
		resp, err := http.Get("http://" + listen + page) //nolint:noctx // the test's own agent
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusOK { //nolint:errcheck // nothing of it is read
			t.Errorf("%s: %s", page, resp.Status)
		}
	}
	var status map[string]any
	out := s.shell(guideLine(t, "outfeed-agent status") + " --json --config '" + config + "'")
	if err := json.Unmarshal(out, &status); err != nil {
		t.Errorf("status --json: %v: %s", err, out)
	}
	var settings map[string]any
	if err := yaml.Unmarshal([]byte(text), &settings); err != nil {
		t.Fatal(err)
	}
	checkVariables(s, "OUTFEED_AGENT_", settings)
}

// checkVariables gives each setting's variable a value that it cannot have: who knows the variable refuses it.
func checkVariables(s *site, prefix string, settings map[string]any) {
	s.t.Helper()
	for name, value := range settings {
		variable := prefix + strings.ToUpper(name)
		if below, ok := value.(map[string]any); ok {
			checkVariables(s, variable+"_", below)
			continue
		}
		if name == "data_dir" {
			continue // every other test sets it
		}
		_, said, err := s.try([]string{"OUTFEED_AGENT_DATA_DIR=" + s.agentDir, variable + "=no such: \x7f"}, nil, bin(s.t, "outfeed-agent"), "status")
		if err == nil {
			s.t.Errorf("%s is not known: status takes anything for it: %s", variable, said)
		}
	}
}
