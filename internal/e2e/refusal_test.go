//go:build e2e

package e2e

import (
	"bytes"
	"iter"
	"os"
	"strings"
	"testing"
)

func splitLines(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for line := range bytes.Lines(text) {
			if line = bytes.TrimSpace(line); len(line) > 0 && !yield(line) {
				return
			}
		}
	}
}

// TestATokenWorksOnceAndOnlyThere uses a token twice, and at another control plane.
func TestATokenWorksOnceAndOnlyThere(t *testing.T) {
	s := newControlPlane(t)
	token := s.token()
	enrol := func(dir, url, token, ca string) (string, error) {
		env := []string{"OUTFEED_AGENT_DATA_DIR=" + dir, "OUTFEED_AGENT_CA_FILE=" + ca}
		out, said, err := s.try(env, nil, bin(t, "outfeed-agent"), "enroll", "--url", url, "--token", token)
		return string(out) + said, err
	}
	here, ca := "https://"+s.tls, s.path("cp", "tls", "cert.pem")
	if said, err := enrol(s.path("first"), here, token, ca); err != nil {
		t.Fatalf("the first use: %v: %s", err, said)
	}
	said, err := enrol(s.path("second"), here, token, ca)
	if err == nil || !strings.Contains(said, "used") {
		t.Errorf("the second use of a token gave %v: %s", err, said)
	}
	if _, err := os.Stat(s.path("second", "identity")); err == nil {
		t.Error("the refused enrolment left an identity behind")
	}

	other := newControlPlane(t)
	said, err = enrol(s.path("third"), "https://"+other.tls, s.token(), other.path("cp", "tls", "cert.pem"))
	if err == nil || !strings.Contains(said, "expected") {
		t.Errorf("a token of another control plane gave %v: %s", err, said)
	}
	said, err = enrol(s.path("fourth"), here, token[:len(token)-5], ca)
	if err == nil || !strings.Contains(said, "token") {
		t.Errorf("half a token gave %v: %s", err, said)
	}
}

// TestBadFlowsAreRefusedAlike gives the same wrong definitions to the agent's check and to the API.
func TestBadFlowsAreRefusedAlike(t *testing.T) {
	b := newBroker(t)
	s := newSite(t)
	s.connections(b.connection())
	conn := s.path("conn.yaml")
	if err := os.WriteFile(conn, []byte(b.connection()), 0o600); err != nil {
		t.Fatal(err)
	}
	const head = "flow: bad\ntrigger: continuous\nsteps:\n  - id: readings\n    read: press\n    with: {topic: a/b, format: json}\n    schema: {ts: timestamp, temp: float, machine: string}\n"
	for name, c := range map[string]struct{ text, want, near string }{
		"verb":       {head + "  - fliter: temp > 1\n  - insight: x\n", "8:5", "filter"},
		"column":     {head + "  - filter: tmep > 1\n  - insight: x\n", "8:13", "temp"},
		"connection": {strings.Replace(head, "read: press", "read: pres", 1) + "  - insight: x\n", "5:11", "press"},
		"type":       {head + "  - filter: temp + machine\n  - insight: x\n", "8:", "string"},
		"cycle":      {head + "  - id: a\n    filter: temp > 1\n    from: b\n  - id: b\n    filter: temp > 2\n    from: a\n  - insight: x\n", "", "cycle"},
		"time":       {head + "  - aggregate: {n: count()}\n    window: {tumbling: 1m}\n  - insight: x\n", "9:", "time"},
	} {
		t.Run(name, func(t *testing.T) {
			file := s.path(name + ".yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, here, err := s.try(nil, nil, bin(t, "outfeed-agent"), "flow", "check", file, "--connections", conn)
			if err == nil {
				t.Error("outfeed-agent flow check accepted it")
			}
			_, there, err := s.try([]string{"OUTFEED_CONFIG=" + s.path("client.json")}, nil, bin(t, "outfeed"), "flow", "check", file)
			if err == nil {
				t.Error("outfeed flow check accepted it")
			}
			for who, said := range map[string]string{"the agent": here, "the control plane": there} {
				if !strings.Contains(said, c.want) || !strings.Contains(said, c.near) {
					t.Errorf("%s says %q; it must name the place %q and %q", who, said, c.want, c.near)
				}
			}
		})
	}
}

// TestBadRowsAreCountedAndTheFlowGoesOn feeds a file in which some rows do not parse.
func TestBadRowsAreCountedAndTheFlowGoesOn(t *testing.T) {
	s := &site{t: t, dir: t.TempDir()}
	for name, text := range map[string]string{
		"in.csv":    "ts,temp\n2026-01-01 00:00:00,1.5\nrubbish\n2026-01-01 00:00:01,warm\n2026-01-01 00:00:02,2.5\n\"never closed\n",
		"conn.yaml": "here: {kind: file, root: " + s.dir + "}\n",
		"flow.yaml": "flow: rows\nsteps:\n  - read: here\n    with: {path: in.csv, format: csv}\n    schema: {ts: timestamp, temp: float}\n  - insight: rows\n",
	} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, said, err := s.try(nil, nil, bin(t, "outfeed-agent"), "flow", "run", s.path("flow.yaml"), "--connections", s.path("conn.yaml"))
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if got := lines(t, out); len(got) != 2 {
		t.Errorf("%d insights, want those of the two good rows: %s", len(got), out)
	}
	for _, want := range []string{"3 records failed", "in.csv:3", "in.csv:4", "warm"} {
		if !strings.Contains(said, want) {
			t.Errorf("the summary does not say %q: %s", want, said)
		}
	}
}

// TestAFlowWhoseTestsFailIsNotPublished publishes a flow with a wrong expectation, one that eats memory, and a right one.
func TestAFlowWhoseTestsFailIsNotPublished(t *testing.T) {
	b := newBroker(t)
	s := newSite(t)
	s.connections(b.connection())
	const head = "flow: hot\ntrigger: continuous\nsteps:\n  - id: readings\n    read: press\n    with: {topic: a/b, format: json}\n    schema: {ts: timestamp, temp: float}\n"
	const given = "    given: {readings: [{ts: \"2026-01-01T00:00:00Z\", temp: 61.5}]}\n"
	good := head + "  - insight: hot\ntests:\n  - name: one reading\n" + given + "    expect: {hot: [{temp: 61.5}]}\n"
	wrong := strings.Replace(good, "[{temp: 61.5}]}\n", "[{temp: 62}]}\n", 1)
	wide := head + "  - map: {x: string(temp)}\n" + strings.Repeat("  - map: {x: \"concat(x, x)\"}\n", 18) + "  - insight: hot\ntests:\n  - name: too much\n    given:\n      readings:\n" +
		strings.Repeat("        - {ts: \"2026-01-01T00:00:00Z\", temp: 61.5}\n", 4000) + "    expect: {hot: []}\n"
	publish := func(name, text string) (string, error) {
		file := s.path(name + ".yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, said, err := s.try([]string{"OUTFEED_CONFIG=" + s.path("client.json")}, nil, bin(t, "outfeed"), "flow", "apply", file, "--publish")
		return string(out) + said, err
	}
	said, err := publish("wrong", wrong)
	if err == nil || !strings.Contains(said, "wrong.yaml:10:") || !strings.Contains(said, "61.5") || !strings.Contains(said, "62") {
		t.Errorf("a failing test gave %v: %s", err, said)
	}
	if said, err = publish("wide", wide); err == nil || !strings.Contains(said, "is the most; give it fewer rows") {
		t.Errorf("tests that eat memory gave %v: %s", err, said)
	}
	if said, err = publish("good", good); err != nil {
		t.Errorf("a passing test gave %v: %s", err, said)
	}
}
