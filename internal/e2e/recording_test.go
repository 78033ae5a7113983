//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// recording finds a recording of a real machine, or makes one of the same shape where there is none.
func recording(t *testing.T) (root string) {
	t.Helper()
	shared, err := filepath.Abs(filepath.Join("..", "..", "..", "shared", "data"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(shared, "machine-temperature.csv")); err == nil {
		return shared
	}
	root = t.TempDir()
	var text strings.Builder
	text.WriteString("timestamp,value\n")
	for i := range 5000 {
		at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * 5 * time.Minute)
		fmt.Fprintf(&text, "%s,%g\n", at.Format(time.DateTime), 80+15*math.Sin(float64(i)/50)+float64(i%7)/3)
	}
	if err := os.WriteFile(filepath.Join(root, "machine-temperature.csv"), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

const hourlyFlow = `
flow: hourly
trigger: %s
steps:
  - read: recordings
    with: {path: machine-temperature.csv, format: csv}
    schema: {timestamp: timestamp, value: float}
  - aggregate: {n: count(), mean: avg(value), highest: max(value)}
    window: {tumbling: 1h, time: timestamp}
  - insight: hourly
`

// hour is one hour's answer.
type hour struct {
	At      time.Time
	N       int
	Mean    float64
	Highest float64
}

// hoursOf asks PostgreSQL the same question.
func hoursOf(t *testing.T, root string) []hour {
	t.Helper()
	c := newDatabase(t).connect(t)
	if _, err := c.Exec(t.Context(), "CREATE TABLE readings (at timestamp, value float8)"); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join(root, "machine-temperature.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // it is only read
	if _, err := c.PgConn().CopyFrom(t.Context(), file, "COPY readings FROM STDIN (FORMAT csv, HEADER)"); err != nil {
		t.Fatal(err)
	}
	rows, err := c.Query(t.Context(), "SELECT date_trunc('hour', at), count(*), avg(value), max(value) FROM readings GROUP BY 1 ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	var all []hour
	for rows.Next() {
		var h hour
		if err := rows.Scan(&h.At, &h.N, &h.Mean, &h.Highest); err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// sameHours compares our answer with the database's.
func sameHours(t *testing.T, got []insight, want []hour) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d hours, want %d", len(got), len(want))
	}
	for i, in := range got {
		var v struct {
			N       int     `json:"n"`
			Mean    float64 `json:"mean"`
			Highest float64 `json:"highest"`
		}
		if err := json.Unmarshal(in.Values, &v); err != nil {
			t.Fatal(err)
		}
		w := want[i]
		if !in.Time.Equal(w.At) || v.N != w.N || v.Highest != w.Highest || math.Abs(v.Mean-w.Mean) > 1e-9*math.Abs(w.Mean) {
			t.Errorf("hour %d is %v %+v, want %+v", i, in.Time, v, w)
		}
	}
}

// TestARecordingAgreesWithTheDatabase runs a recording through a deployed flow and through flow run.
func TestARecordingAgreesWithTheDatabase(t *testing.T) {
	root := recording(t)
	want := hoursOf(t, root)
	s := newSite(t)
	connections := fmt.Sprintf("recordings: {kind: file, root: %q}\n", root)

	flow, conn := s.path("hourly.yaml"), s.path("conn.yaml")
	if err := os.WriteFile(flow, fmt.Appendf(nil, hourlyFlow, "manual"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conn, []byte(connections), 0o600); err != nil {
		t.Fatal(err)
	}
	out := s.command(nil, nil, bin(t, "outfeed-agent"), "flow", "run", flow, "--connections", conn)
	sameHours(t, lines(t, out), want)

	s.connections(connections)
	s.apply(fmt.Sprintf(hourlyFlow, "continuous"))
	var got []insight
	s.eventually("every hour has arrived", func() (err error) {
		if got, err = s.insights("hourly"); err == nil && len(got) < len(want) {
			err = fmt.Errorf("%d of %d", len(got), len(want))
		}
		return err
	})
	sameHours(t, got, want)
}

// lines reads the JSON lines of flow run.
func lines(t *testing.T, out []byte) []insight {
	t.Helper()
	var all []insight
	for line := range splitLines(out) {
		var in struct {
			Insight string          `json:"insight"`
			Time    time.Time       `json:"time"`
			Key     json.RawMessage `json:"key"`
			Values  json.RawMessage `json:"values"`
		}
		if err := json.Unmarshal(line, &in); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, insight{Seq: int64(len(all)), Time: in.Time, Name: in.Insight, Key: in.Key, Values: in.Values})
	}
	return all
}
