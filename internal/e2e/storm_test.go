package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The flows of a plant beside rawFlow and windowFlow: one follows files, one reads a table once a second.
const (
	filesFlow = `
flow: pieces
trigger: continuous
steps:
  - read: folder
    with: {path: "*.csv", format: csv, follow: true}
    schema: {n: int, made: timestamp}
  - insight: pieces
`
	ordersFlow = `
flow: orders
trigger: {every: 1s}
steps:
  - read: mes
    with: {table: public.orders, cursor: n}
    schema: {n: int, product: string}
  - insight: orders
`
)

// linesPerFile is after how many lines the next file begins.
const linesPerFile = 2000

// production is a broker, a folder and a database, and the load that they get.
type production struct {
	t        *testing.T
	broker   *broker
	database *database
	folder   string

	publisher *publisher
	orders    *pgx.Conn
	file      *os.File
	// messages, lines and rows are how many there were so far, each numbered from 0.
	messages, lines, rows int
}

func newProduction(t *testing.T) *production {
	t.Helper()
	p := &production{t: t, broker: newBroker(t), database: newDatabase(t), folder: t.TempDir()}
	p.database.exec(t, "CREATE TABLE orders (n int PRIMARY KEY, product text)")
	p.orders = p.database.connect(t)
	p.publisher = p.broker.publisher()
	t.Cleanup(func() {
		if p.file != nil {
			p.file.Close() //nolint:errcheck // the test is over
		}
	})
	return p
}

// connections is the plant's CONN.yaml.
func (p *production) connections() string {
	return p.broker.connection() + fmt.Sprintf("folder: {kind: file, root: %q}\nmes: {kind: postgres, host: %q, database: postgres, user: outfeed_mes}\n",
		p.folder, p.database.socket)
}

// run lets the plant work until the context ends: per tick a message and two lines, and in every fourth tick a row.
func (p *production) run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := p.work(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (p *production) work(ctx context.Context) error {
	token := p.publisher.client.Publish(fmt.Sprintf("plant/press/P%d/state", p.messages%2), 1, false, message(p.messages))
	if !token.WaitTimeout(deadline) {
		return errors.New("the broker did not answer")
	}
	if err := token.Error(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	p.messages++
	for range 2 {
		if err := p.line(); err != nil {
			return err
		}
	}
	if p.messages%4 != 0 {
		return nil
	}
	// A row whose outcome is unknown because the context ended is not the load's last: a count follows.
	if _, err := p.orders.Exec(context.WithoutCancel(ctx), "INSERT INTO orders VALUES ($1, $2)", p.rows, fmt.Sprintf("product %d", p.rows%7)); err != nil {
		return fmt.Errorf("insert an order: %w", err)
	}
	p.rows++
	return nil
}

// line writes a line in two pieces, so that the agent also meets half of one.
func (p *production) line() (err error) {
	if p.lines%linesPerFile == 0 {
		if p.file != nil {
			if err := p.file.Close(); err != nil {
				return err
			}
		}
		if p.file, err = os.Create(filepath.Join(p.folder, fmt.Sprintf("%06d.csv", p.lines/linesPerFile))); err != nil {
			return err
		}
		if _, err := p.file.WriteString("n,made\n"); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("%d,%s\n", p.lines, origin.Add(time.Duration(p.lines)*time.Second).Format(time.DateTime))
	cut := p.lines % len(text)
	p.lines++
	if _, err := p.file.WriteString(text[:cut]); err != nil {
		return err
	}
	_, err = p.file.WriteString(text[cut:])
	return err
}

// controlPlaneDatabase makes a database for a control plane in the server and migrates it; it gives the environment with
// which the control plane uses it.
func (s *site) controlPlaneDatabase(d *database) []string {
	s.t.Helper()
	d.exec(s.t, "CREATE ROLE outfeed_owner LOGIN CREATEROLE", "CREATE DATABASE outfeed OWNER outfeed_owner")
	env := append(s.controlPlaneEnv(), "OUTFEED_MIGRATE_DATABASE_URL="+d.server.URL("outfeed_owner", "outfeed"))
	s.command(env, nil, bin(s.t, "outfeed-controlplane"), "migrate")
	return []string{"OUTFEED_DATABASE_URL=" + d.server.URL("outfeed_app", "outfeed")}
}

// newProductionSite is a plant, a control plane on the plant's PostgreSQL server, and an agent that runs the plant's four flows.
func newProductionSite(t *testing.T) (*production, *site) {
	t.Helper()
	p, s := newProduction(t), prepareSite(t)
	s.controlPlaneExtra = s.controlPlaneDatabase(p.database)
	s.serve(p)
	return p, s
}

// serve starts everything, with the plant's flows.
func (s *site) serve(p *production) {
	s.t.Helper()
	s.startControlPlane()
	s.createTenant()
	s.enrol(s.link.address)
	s.startAgent()
	s.waitConnected()
	s.connections(p.connections())
	for _, flow := range []string{rawFlow, windowFlow, filesFlow, ordersFlow} {
		s.apply(flow)
	}
	s.eventually("the four flows are there", func() error {
		if st := s.agentStatus(); len(st.Flows) != 4 {
			return fmt.Errorf("the agent says %+v", st)
		}
		return nil
	})
}

// checkArrived waits until all that the plant has made is in the control plane, and wants it once: each message, line and
// row, each window that is closed, and a sequence without a gap.
func (s *site) checkArrived(p *production) {
	s.t.Helper()
	var all []insight
	numbered := map[string]int{"raw": p.messages, "pieces": p.lines, "orders": p.rows}
	windows := wantedWindows(p.messages)
	want := len(windows)
	for _, n := range numbered {
		want += n
	}
	s.eventually(fmt.Sprintf("%d insights have arrived", want), func() (err error) {
		st := s.agentStatus()
		if st.Outbox.Acknowledged < uint64(want) || //nolint:gosec // a count
			st.Outbox.Waiting > 0 {
			return fmt.Errorf("the agent says %+v", st.Outbox)
		}
		if all, err = s.insights(""); err == nil && len(all) < want {
			err = fmt.Errorf("%d of %d", len(all), want)
		}
		return err
	})
	for i, in := range all {
		if in.Seq != int64(i)+1 {
			s.t.Fatalf("insight %d of the sequence is number %d", i+1, in.Seq)
		}
	}
	byName := map[string][]insight{}
	for _, in := range all {
		byName[in.Name] = append(byName[in.Name], in)
	}
	for name, n := range numbered {
		s.checkNumbered(name, byName[name], n)
	}
	s.compareWindows(byName["per_ten_seconds"], windows)
	if len(all) != want {
		s.t.Errorf("%d insights, want %d", len(all), want)
	}
	if !s.t.Failed() {
		s.t.Logf("%d insights (%d messages, %d lines, %d rows, %d windows): 0 lost, 0 doubled", len(all), p.messages, p.lines, p.rows, len(windows))
	}
}

// checkNumbered wants each number from 0 on exactly once.
func (s *site) checkNumbered(name string, all []insight, want int) {
	s.t.Helper()
	seen := make([]int, want)
	for _, in := range all {
		var v struct {
			N int `json:"n"`
		}
		if err := json.Unmarshal(in.Values, &v); err != nil || v.N >= want {
			s.t.Fatalf("insight %s %s: %v", name, in.Values, err)
		}
		seen[v.N]++
	}
	lost, doubled := 0, 0
	for n, times := range seen {
		if times == 1 {
			continue
		}
		if times == 0 {
			lost++
		} else {
			doubled += times - 1
		}
		if lost+doubled < 10 {
			s.t.Errorf("%s %d is there %d times", name, n, times)
		}
	}
	if lost+doubled > 0 {
		s.t.Errorf("%s: %d lost and %d doubled of %d", name, lost, doubled, want)
	}
}

// windowSum is a window's insight.
type windowSum struct{ Messages, Total int }

// wantedWindows are the windows that are closed after so many messages; the last one is open.
func wantedWindows(messages int) map[string]windowSum {
	want := map[string]windowSum{}
	open := origin.Add(time.Duration(messages-1)*100*time.Millisecond - time.Second).Truncate(10 * time.Second)
	for n := range messages {
		start := origin.Add(time.Duration(n/100) * 10 * time.Second)
		if !start.Before(open) {
			break
		}
		k := fmt.Sprintf("P%d %s", n%2, start.Format(time.RFC3339))
		w := want[k]
		want[k] = windowSum{w.Messages + 1, w.Total + n}
	}
	return want
}

func (s *site) compareWindows(all []insight, want map[string]windowSum) {
	s.t.Helper()
	got := s.windows(all)
	for name, w := range want {
		if got[name] != w {
			s.t.Errorf("window %s is %+v, want %+v", name, got[name], w)
		}
	}
	if len(got) != len(want) {
		s.t.Errorf("%d windows, want %d", len(got), len(want))
	}
}

// windows are the windows of insights, none of which may have arrived twice.
func (s *site) windows(all []insight) map[string]windowSum {
	s.t.Helper()
	got := map[string]windowSum{}
	for _, in := range all {
		var k struct{ Machine string }
		var v windowSum
		if err := errors.Join(json.Unmarshal(in.Key, &k), json.Unmarshal(in.Values, &v)); err != nil {
			s.t.Fatal(err)
		}
		name := k.Machine + " " + in.Time.Format(time.RFC3339)
		if _, twice := got[name]; twice {
			s.t.Errorf("window %s arrived twice", name)
		}
		got[name] = v
	}
	return got
}

// checkAgentIsWell wants nothing lost, nothing left behind and a small data directory.
func (s *site) checkAgentIsWell(mostBytes int64) {
	s.t.Helper()
	st := s.agentStatus()
	if o := st.Outbox; o.Lost != 0 || o.LostRemotely != 0 || o.Degraded != "" || o.Waiting != 0 || o.Acknowledged != o.Produced {
		s.t.Errorf("the agent says %+v", o)
	}
	bytes, names := usage(s.t, s.agentDir)
	if bytes > mostBytes {
		s.t.Errorf("the agent's data directory has %d bytes, want at most %d: %q", bytes, mostBytes, names)
	}
	for _, name := range names {
		if m, err := filepath.Match("*.new*", filepath.Base(name)); m || err != nil {
			// The agent is at work and may be writing it just now.
			s.eventually(name+" is gone", func() error {
				if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
					return errors.Join(errors.New("it was left behind"), err)
				}
				return nil
			})
		}
		if m, err := filepath.Match("*.corrupt-*", filepath.Base(name)); m || err != nil {
			s.t.Errorf("%s was set aside", name)
		}
		if filepath.Base(filepath.Dir(name)) == "scratch" {
			s.t.Errorf("%s was left behind", name)
		}
	}
}

// usage is how many bytes a folder takes on the disk, and the files in it.
func usage(t *testing.T, dir string) (bytes int64, names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		bytes += info.Size()
		names = append(names, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return bytes, names
}

// superuser connects to the control plane's database past its row-level security.
func (d *database) superuser(t *testing.T) *pgx.Conn {
	t.Helper()
	return d.connectTo(t, "outfeed")
}
