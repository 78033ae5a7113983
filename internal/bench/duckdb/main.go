// Command duckdb does the job of one workload with DuckDB's Go bindings and writes the result as JSON lines. It has a
// module of its own, so that neither DuckDB nor cgo ever touches the product.
//
//	duckdb -threads 2 -out OUT w1 FILE | w2 FILE | w3 PRODUCTION ORDERS
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"strings"

	_ "github.com/duckdb/duckdb-go/v2"
)

const columns = `{ts: 'BIGINT', line: 'VARCHAR', machine: 'VARCHAR', temp: 'DOUBLE', vibration: 'DOUBLE', state: 'VARCHAR', count: 'BIGINT', scrap: 'BIGINT'}`

// perMinute is the job of W1 and W2. The columns that it does not name are pruned by DuckDB itself.
const perMinute = `
	SELECT machine, ts // 60000 * 60000 AS "minute", count(*) AS n, avg(temp) AS temp_avg, max(vibration) AS vib_max,
	       sum("count")::BIGINT AS made, avg(("count" - scrap) / nullif("count", 0)) AS yield_avg
	FROM %s WHERE state = 'RUN' AND temp > 60 GROUP BY machine, "minute"`

const perProduct = `
	SELECT product, count(*) AS n, sum(quantity)::BIGINT AS quantity
	FROM read_csv(%s, header = true, auto_detect = false, columns = {order_id: 'VARCHAR', ts: 'BIGINT', machine: 'VARCHAR', quantity: 'BIGINT'})
	JOIN read_csv(%s, header = true, auto_detect = false, columns = {order_id: 'VARCHAR', product: 'VARCHAR', planned: 'BIGINT', due: 'BIGINT'}) USING (order_id)
	GROUP BY product`

func main() {
	threads := flag.Int("threads", 2, "worker threads")
	out := flag.String("out", "", "`FILE` for the result")
	version := flag.Bool("version", false, "print DuckDB's version")
	flag.Parse()
	if err := run(context.Background(), *threads, *out, *version, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "duckdb:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, threads int, out string, version bool, args []string) error {
	db, err := sql.Open("duckdb", fmt.Sprintf("?threads=%d", threads))
	if err != nil {
		return err
	}
	defer db.Close()
	if version {
		var v string
		if err := db.QueryRowContext(ctx, "SELECT version()").Scan(&v); err != nil {
			return err
		}
		fmt.Println(v)
		return nil
	}
	query, err := queryOf(args)
	if err != nil {
		return err
	}
	for _, statement := range []string{
		"SET preserve_insertion_order = false", // as its manual advises for memory; the result has no order
		"COPY (" + query + ") TO " + quote(out) + " (FORMAT json)",
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func queryOf(args []string) (string, error) {
	switch {
	case len(args) == 2 && args[0] == "w1":
		return fmt.Sprintf(perMinute, "read_json("+quote(args[1])+", format = 'newline_delimited', columns = "+columns+")"), nil
	case len(args) == 2 && args[0] == "w2":
		return fmt.Sprintf(perMinute, "read_csv("+quote(args[1])+", header = true, auto_detect = false, columns = "+columns+")"), nil
	case len(args) == 3 && args[0] == "w3":
		return fmt.Sprintf(perProduct, quote(args[1]), quote(args[2])), nil
	}
	return "", fmt.Errorf("give w1 FILE, w2 FILE or w3 PRODUCTION ORDERS, not %v", args)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
