package bench

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEnginesAgree has the agent and the scanner, with one worker and with two, do W1 to W3 on little data: Run holds
// their results against each other.
func TestEnginesAgree(t *testing.T) {
	t.Parallel()
	self := filepath.Join(t.TempDir(), "bench")
	b := New(Settings{
		Root: filepath.Join("..", ".."), Data: t.TempDir(), Temp: filepath.Dir(self), Self: self,
		Size: Records{Readings: 30_000, Production: 20_000}, Rounds: 1, Log: t.Output(),
	})
	if _, err := b.build(t.Context(), ".", "./internal/bench/cmd/bench", "bench"); err != nil {
		t.Fatal(err)
	}
	loads, err := Prepare(b.set.Data, b.set.Size)
	if err != nil {
		t.Fatal(err)
	}
	engines, err := b.scanners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	agent, err := b.agent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range loads {
		list, err := b.workload(t.Context(), &loads[i], append(engines, agent))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			if m.Problem != "" || m.PerCPU <= 0 || m.PerWall <= 0 || m.PeakBytes < 1<<20 {
				t.Errorf("%s, %s: %+v", m.Workload, m.Engine, m)
			}
		}
		var table bytes.Buffer
		if err := PrintTable(&table, list); err != nil || strings.Count(table.String(), loads[i].Name) != len(list) {
			t.Errorf("the table, error %v:\n%s", err, &table)
		}
	}
}

func TestReadings(t *testing.T) {
	t.Parallel()
	var bytesInAll int
	for i := range 10_000 {
		line := dense.appendJSON(nil, i)
		bytesInAll += len(line)
		if again := dense.appendJSON(nil, i); !bytes.Equal(line, again) {
			t.Fatalf("record %d is %s and %s", i, line, again)
		}
	}
	if mean := bytesInAll / 10_000; mean != 116 {
		t.Errorf("a record has %d bytes, want 116", mean)
	}
	const want = `{"ts":1767225600001,"line":"L7","machine":"M053","temp":88.07,"vibration":3.660,"state":"RUN","count":12,"scrap":1}`
	if line := dense.appendJSON(nil, 1); string(line) != want+"\n" {
		t.Errorf("record 1 is %s, want %s: files of another shape need another dataVersion", line, want)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	names := []string{"n", "avg"}
	right := result{"M1": {3, 1.5}, "M2": {1, math.NaN()}}
	for name, c := range map[string]struct {
		got  result
		want string
	}{
		"the same":          {result{"M1": {3, 1.5 + 1e-12}, "M2": {1, math.NaN()}}, ""},
		"another count":     {result{"M1": {4, 1.5}, "M2": {1, math.NaN()}}, "n of M1 is 4 instead of 3"},
		"another average":   {result{"M1": {3, 1.5001}, "M2": {1, math.NaN()}}, "avg of M1"},
		"a value for null":  {result{"M1": {3, 1.5}, "M2": {1, 0}}, "avg of M2"},
		"a group is gone":   {result{"M1": {3, 1.5}}, "1 groups instead of 2"},
		"a group is others": {result{"M1": {3, 1.5}, "M3": {1, 0}}, "did not find the group M2"},
	} {
		err := compare(c.got, right, names)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestReadResult(t *testing.T) {
	t.Parallel()
	w := &Workload{keys: []string{"machine", "minute"}, values: []string{"n", "yield_avg"}}
	path := filepath.Join(t.TempDir(), "result.jsonl")
	for _, text := range []string{
		`{"machine":"M001","minute":1767225600000,"n":2,"yield_avg":null}`,
		`{"insight":"i","time":"2026-01-01T00:00:00Z","key":{"machine":"M001"},"values":{"window_start":"2026-01-01T00:00:00Z","n":2,"yield_avg":null}}`,
	} {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readResult(path, w)
		if err != nil {
			t.Fatal(err)
		}
		if err := compare(got, result{"M001 1767225600000": {2, math.NaN()}}, w.values); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := os.WriteFile(path, []byte("{\"machine\":1}\n{\"machine\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readResult(path, w); err == nil {
		t.Error("the same group twice is no error")
	}
}

// TestTunnel measures the tunnel with little.
func TestTunnel(t *testing.T) {
	t.Parallel()
	b := New(Settings{
		Root: filepath.Join("..", ".."), Temp: t.TempDir(), Rounds: 1, Log: t.Output(), Only: []string{tunnelName},
		Tunnel: TunnelSize{Agents: 20, Echoes: 200, Bytes: 4 << 20},
	})
	list, err := b.Tunnel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := PrintTunnel(&table, list); err != nil || strings.Count(table.String(), tunnelName) != 3 {
		t.Errorf("the table, error %v:\n%s", err, &table)
	}
	for _, m := range list {
		if m.EchoP50 <= 0 || m.EchoP99 < m.EchoP50 || m.PerSecond <= 0 || m.CPUPerGB <= 0 {
			t.Errorf("%+v", m)
		}
	}
}
