package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// keyNames are the control plane's own keys; NAME.key is the file of each.
func keyNames() []string { return []string{"master", "identity", "bundle"} }

func (s *site) keyFile(name string) string { return s.path("cp", name+".key") }

// refused starts the control plane, which must end by itself, and gives what it says.
func (s *site) refused() string {
	s.t.Helper()
	out, said, err := s.try(s.controlPlaneEnv(), nil, bin(s.t, "outfeed-controlplane"), "serve")
	if err == nil {
		s.t.Fatalf("the control plane was to refuse, and served until it was stopped: %s%s", out, said)
	}
	return said
}

// move renames a file.
func (s *site) move(from, to string) {
	s.t.Helper()
	if err := os.Rename(from, to); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) wantSaid(said string, all ...string) {
	s.t.Helper()
	for _, want := range all {
		if !strings.Contains(said, want) {
			s.t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
}

// shownKeys are the fingerprints that the program shows of a data directory.
func (s *site) shownKeys() map[string]string {
	s.t.Helper()
	var keys []struct{ Name, Fingerprint string }
	out := s.command(s.controlPlaneEnv(), nil, bin(s.t, "outfeed-controlplane"), "keys", "show", "--json")
	if err := json.Unmarshal(out, &keys); err != nil || len(keys) != 3 {
		s.t.Fatalf("keys show printed %s (%v)", out, err)
	}
	found := map[string]string{}
	for _, k := range keys {
		found[k.Name] = k.Fingerprint
	}
	return found
}

// TestFaultKeysMissingOrWrong loses each key of a control plane that has an agent, and takes those of another installation:
// neither starts, nothing is made anew, and with the right files back the agent connects.
func TestFaultKeysMissingOrWrong(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newControlPlane(t)
	other.controlPlane.stop()
	s.controlPlane.stop()
	before := s.shownKeys()
	for _, name := range keyNames() {
		s.move(s.keyFile(name), s.keyFile(name)+".away")
		said := s.refused()
		s.wantSaid(said, s.keyFile(name)+" is not there", "1 agents", "Restore the files from a backup", "outfeed-controlplane keys replace "+name)
		if _, err := os.Stat(s.keyFile(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was made anew: %v", name, err)
		}
		s.move(s.keyFile(name)+".away", s.keyFile(name))
	}
	// All of another installation's, which fit each other.
	for _, name := range keyNames() {
		s.move(s.keyFile(name), s.keyFile(name)+".away")
		copyFile(t, other.keyFile(name), s.keyFile(name))
	}
	said := s.refused()
	for _, name := range keyNames() {
		s.wantSaid(said, before[name], other.shownKeys()[name], "another installation's")
	}
	// One of them alone.
	for _, name := range keyNames() {
		for _, n := range keyNames() {
			from := s.keyFile(n) + ".away"
			if n == name {
				from = other.keyFile(n)
			}
			copyFile(t, from, s.keyFile(n))
		}
		s.wantSaid(s.refused(), "is another installation's or altered: restore both from the same backup")
	}
	for _, name := range keyNames() {
		s.move(s.keyFile(name)+".away", s.keyFile(name))
	}
	s.startControlPlane()
	s.waitConnected()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o600); err != nil { //nolint:gosec // a file of the test
		t.Fatal(err)
	}
}

// TestFaultKeysOfTwoDataDirectories has two control planes with keys of their own on one database: the second is refused.
func TestFaultKeysOfTwoDataDirectories(t *testing.T) {
	t.Parallel()
	s, d := prepareSite(t), newDatabase(t)
	s.controlPlaneExtra = s.controlPlaneDatabase(d)
	s.startControlPlane()
	second := prepareSite(t)
	second.controlPlaneExtra = s.controlPlaneExtra
	second.wantSaid(second.refused(), "keys are missing", "OUTFEED_DATA_DIR")
	for _, name := range keyNames() {
		copyFile(t, s.keyFile(name), second.keyFile(name))
	}
	second.startControlPlane()
}

// TestFaultKeyFilesOfOthers opens every file with a key to others in each way. A start names all of them at once, each with
// the command that mends it, and after those it serves.
func TestFaultKeyFilesOfOthers(t *testing.T) {
	t.Parallel()
	s := newControlPlane(t)
	s.controlPlane.stop()
	files := []string{s.path("cp", "admin-token"), s.path("cp", "tls", "key.pem")}
	for _, name := range keyNames() {
		files = append(files, s.keyFile(name))
	}
	ways := map[string]func(string) error{
		"mode": func(path string) error { return os.Chmod(path, 0o644) }, //nolint:gosec // what the test is about
		"link": func(path string) error {
			return errors.Join(os.Rename(path, path+".elsewhere"), os.Symlink(path+".elsewhere", path))
		},
	}
	if os.Geteuid() == 0 {
		ways["owner"] = func(path string) error { return os.Chown(path, 65534, 65534) }
	}
	for way, broken := range ways {
		for _, path := range files {
			if err := broken(path); err != nil {
				t.Fatal(err)
			}
		}
		dirs := []string{s.path("cp"), s.path("cp", "tls")}
		for _, dir := range dirs {
			if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // what the test is about
				t.Fatal(err)
			}
		}
		said := s.refused()
		commands := remedies(said)
		if len(commands) != len(files)+len(dirs) {
			t.Errorf("%s: %d commands for %d files and %d directories:\n%s", way, len(commands), len(files), len(dirs), said)
		}
		for _, command := range commands {
			s.command(nil, nil, "sh", "-c", command)
		}
		s.startControlPlane()
		s.controlPlane.stop()
		t.Logf("%s: %q", way, commands)
	}
}

// remedies are the commands in what the program says.
func remedies(said string) []string {
	var out []string
	for line := range strings.Lines(said) {
		_, command, found := strings.Cut(line, "mend it with: ")
		if !found {
			_, command, found = strings.Cut(line, "put the file itself there: ")
		}
		if found {
			command, _, _ = strings.Cut(command, "; otherwise")
			out = append(out, strings.TrimSpace(command))
		}
	}
	return out
}

// TestFaultKeysLostForGood loses the master key, which the others are stored under. What it costs is told first; then new
// ones are made, the agent is enrolled again and the credential entered again, and all works.
func TestFaultKeysLostForGood(t *testing.T) {
	t.Parallel()
	s, b := newSite(t), newBroker(t)
	s.connections(b.connection())
	replace := func(more ...string) (out []byte, said string, err error) {
		return s.try(s.controlPlaneEnv(), nil, bin(t, "outfeed-controlplane"), append([]string{"keys", "replace", "master", "--json"}, more...)...)
	}
	if _, said, err := replace("--yes"); err == nil {
		t.Errorf("keys were replaced under a running control plane: %s", said)
	}
	s.controlPlane.stop()
	before := s.shownKeys()
	if err := os.Remove(s.keyFile("master")); err != nil {
		t.Fatal(err)
	}
	out, said, err := replace()
	if err == nil || !strings.Contains(said, "add --yes") || !strings.Contains(string(out), `"agents": 1`) || !strings.Contains(string(out), `"credentials": 1`) {
		t.Errorf("without --yes it says %s%s, %v", out, said, err)
	}
	if _, err := os.Stat(s.keyFile("master")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without --yes a key was made: %v", err)
	}
	if out, said, err = replace("--yes"); err != nil {
		t.Fatalf("%s%s%v", out, said, err)
	}
	for name, fingerprint := range s.shownKeys() {
		if fingerprint == before[name] || !strings.Contains(string(out), fingerprint) {
			t.Errorf("%s has %s, it was %s, and the command says %s", name, fingerprint, before[name], out)
		}
	}
	s.startControlPlane()
	s.agent.mustLive()
	s.eventually("the agent says that it is another control plane", func() error {
		out, said, err := s.try(s.agentEnv(), nil, bin(t, "outfeed-agent"), "status")
		if err == nil && !strings.Contains(string(out), "not connected: ") {
			err = fmt.Errorf("it says %s%s", out, said)
		}
		return err
	})
	s.agent.stop()
	if err := os.RemoveAll(filepath.Join(s.agentDir, "identity")); err != nil {
		t.Fatal(err)
	}
	s.enrol(s.link.address)
	s.startAgent()
	s.eventually("the agent that was enrolled again is connected", func() error {
		var list struct{ Items []struct{ Connected bool } }
		if err := s.get("/agents", &list); err != nil {
			return err
		}
		if len(list.Items) != 2 || !slices.ContainsFunc(list.Items, func(a struct{ Connected bool }) bool { return a.Connected }) {
			return fmt.Errorf("agents: %+v", list.Items)
		}
		return nil
	})
	s.connections(b.connection())
	s.apply(quietFlow)
	s.eventually("the flow runs with the credential", func() error {
		if all := s.fetch("http://" + s.api + "/api/v1/agents"); !strings.Contains(all, `"state":"running"`) {
			return errors.New(all)
		}
		return nil
	})
}
