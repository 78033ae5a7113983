//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const systemsFlow = `flow: systems
trigger: continuous
steps:
  - id: pieces
    read: files
    with: {path: "*.csv", format: csv, follow: true}
    schema: {n: int, order_no: int}
  - id: order
    lookup: mes
    with: {table: erp.orders}
    on: {order_no: id}
    schema: {product: string}
    cache: {size: 50, age: 1s}
  - id: results
    write: mes
    with: {table: mes.results, mode: upsert, key: [n]}
  - id: copy
    write: mes
    with: {table: mes.copies}
  - id: told
    write: broker
    with: {topic: told}
  - insight: pieces
    key: [n]
`

// TestSystemsOfThePlantOverKills kills an agent that looks rows up and writes rows, and takes the database away from it.
func TestSystemsOfThePlantOverKills(t *testing.T) {
	const rounds, perRound = 5, 1500
	dir := t.TempDir()
	d, b := newDatabase(t), newBroker(t)
	d.exec(t, "CREATE SCHEMA erp", "CREATE SCHEMA mes",
		"CREATE TABLE erp.orders (id int PRIMARY KEY, product text)",
		"INSERT INTO erp.orders SELECT g, 'product ' || g FROM generate_series(0, 90) g",
		"CREATE TABLE mes.results (n int PRIMARY KEY, order_no int, product text)",
		"CREATE TABLE mes.copies (n int, order_no int, product text)")
	files := filepath.Join(dir, "in")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	flow, conn := filepath.Join(dir, "flow.yaml"), filepath.Join(dir, "conn.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(flow, systemsFlow)
	write(conn, fmt.Sprintf("files: {kind: file, root: %q}\nmes: {kind: postgres, host: %q, database: postgres, user: outfeed_mes}\n", files, d.socket)+
		strings.Replace(b.connection(), "press:", "broker:", 1))
	db := d.connect(t)
	count := func(sql string) (n int) {
		t.Helper()
		if err := db.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for round := range rounds {
		agent := start(t, filepath.Join(dir, fmt.Sprintf("agent-%d.log", round)), cleanEnv(), bin(t, "outfeed-agent"),
			"flow", "run", flow, "--connections", conn, "--data-dir", filepath.Join(dir, "data"), "--allow-writes")
		var text strings.Builder
		text.WriteString("n,order_no\n")
		for n := round * perRound; n < (round+1)*perRound; n++ {
			fmt.Fprintf(&text, "%d,%d\n", n, n%100)
		}
		write(filepath.Join(files, fmt.Sprintf("%d.csv", round)), text.String())
		if round == 2 { // the database ends every connection while rows are on their way
			d.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'outfeed_mes'")
		}
		// Somewhere in the middle of the round, and at the end of the last one.
		want := round*perRound + 1
		if round == rounds-1 {
			want = rounds * perRound
		}
		eventually(t, "rows are written", func() error {
			if n := count("SELECT least((SELECT count(*) FROM mes.results), (SELECT count(DISTINCT n) FROM mes.copies))"); n < want {
				return fmt.Errorf("%d of %d", n, want)
			}
			return nil
		})
		agent.kill()
	}
	for sql, want := range map[string]int{
		"SELECT count(*) FROM mes.results":         rounds * perRound,
		"SELECT count(DISTINCT n) FROM mes.copies": rounds * perRound,
		"SELECT count(*) FROM mes.results r WHERE r.order_no <> r.n % 100 OR r.product IS DISTINCT FROM (SELECT product FROM erp.orders WHERE id = r.order_no)": 0,
	} {
		if n := count(sql); n != want {
			t.Errorf("%s gives %d, want %d", sql, n, want)
		}
	}
}
