package bench

import (
	"fmt"
	"os"
	"path/filepath"
)

// Workload is a job that every engine does on the same files.
type Workload struct {
	// Name is that of the table, Job w1, w2 or w3, Text says what it is.
	Name, Job, Text string
	// Records is how many records the job reads in all.
	Records int
	// Files are what it reads, in the order that the engines take them.
	Files []string
	// Flow is the flow's text; it reads a connection named plant.
	Flow string
	// keys and values are the members of a result, as the other engines name them.
	keys, values []string
}

// perMinute is the flow of W1 and W2; it misses the file's name and format.
const perMinute = `flow: machine-minutes
steps:
  - id: readings
    read: plant
    with: {path: %q, format: %s}
    schema: {ts: timestamp, line: string, machine: string, temp: float, vibration: float, state: string, count: int, scrap: int}
  - filter: state == "RUN" and temp > 60
  - map: {yield: (count - scrap) / count}
  - aggregate: {n: count(), temp_avg: avg(temp), vib_max: max(vibration), made: sum(count), yield_avg: avg(yield)}
    by: [machine]
    window: {tumbling: 1m, time: ts}
  - insight: machine_minute
    key: [machine]
`

const perProduct = `flow: quantity-per-product
steps:
  - id: orders
    read: plant
    with: {path: %q, format: csv}
    schema: {order_id: string, product: string, planned: int, due: int}
  - id: production
    read: plant
    with: {path: %q, format: csv}
    schema: {order_id: string, ts: timestamp, machine: string, quantity: int}
  - join: orders
    on: [order_id]
  - aggregate: {n: count(), quantity: sum(quantity)}
    by: [product]
  - insight: product_quantity
    key: [product]
`

// connections is the CONN.yaml of every flow.
const connections = "plant: {kind: file, root: %q}\n"

// Records is how large the workloads are.
type Records struct {
	// Readings is for W1 and W2, Production for W3.
	Readings, Production int
}

// FullSize is the size that the project's goals are stated for.
func FullSize() Records { return Records{Readings: 5_000_000, Production: 2_000_000} }

// Prepare makes the files of W1 to W3 below dir, as far as they are not there from an earlier run.
func Prepare(dir string, size Records) ([]Workload, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of the workloads' data: %w", err)
	}
	named := func(kind string, records int, extension string) string {
		return fmt.Sprintf("%s-v%s-%d.%s", kind, dataVersion, records, extension)
	}
	const readingHeader = "ts,line,machine,temp,vibration,state,count,scrap\n"
	tables := []table{
		{named("readings", size.Readings, "jsonl"), "", size.Readings, dense.appendJSON},
		{named("readings", size.Readings, "csv"), readingHeader, size.Readings, dense.appendCSV},
		{named("production", size.Production, "csv"), "order_id,ts,machine,quantity\n", size.Production, appendProduction},
		{named("orders", orderCount, "csv"), "order_id,product,planned,due\n", orderCount, appendOrder},
		{named("sparse", size.Readings, "csv"), readingHeader, size.Readings, sparse.appendCSV},
	}
	paths := make([]string, len(tables))
	for i, t := range tables {
		var err error
		if paths[i], err = makeFile(dir, t); err != nil {
			return nil, err
		}
	}
	name := func(i int) string { return filepath.Base(paths[i]) }
	minute, sums := []string{"machine", "minute"}, []string{"n", "temp_avg", "vib_max", "made", "yield_avg"}
	return []Workload{
		{
			Name: "w1", Job: "w1", Text: "JSON lines, filter, five aggregates per machine and minute", Records: size.Readings,
			Files: paths[:1], Flow: fmt.Sprintf(perMinute, name(0), "jsonl"), keys: minute, values: sums,
		},
		{
			Name: "w2", Job: "w2", Text: "the same records as CSV", Records: size.Readings,
			Files: paths[1:2], Flow: fmt.Sprintf(perMinute, name(1), "csv"), keys: minute, values: sums,
		},
		{
			Name: "w2-sparse", Job: "w2", Text: "W2 with 64 machines at 1 Hz, so with many more groups", Records: size.Readings,
			Files: paths[4:5], Flow: fmt.Sprintf(perMinute, name(4), "csv"), keys: minute, values: sums,
		},
		{
			Name: "w3", Job: "w3", Text: "CSV joined with work orders, sum of quantity per product", Records: size.Production,
			Files: paths[2:4], Flow: fmt.Sprintf(perProduct, name(3), name(2)), keys: []string{"product"}, values: []string{"n", "quantity"},
		},
	}, nil
}
