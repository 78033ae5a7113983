package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/mqtt"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/expr"
)

var schema = expr.Schema{{Name: "id", Type: expr.Int}, {Name: "topic", Type: expr.String}, {Name: "name", Type: expr.String}}

// line is a source of a test and what it delivered.
type line struct {
	t        *testing.T
	settings connector.SourceSettings
	src      connector.Source
	rows     []string
	failures []connector.FailedRecord
	cursor   connector.Cursor
}

func newLine(t *testing.T, address string, options, with map[string]any) *line {
	t.Helper()
	conn := map[string]any{"address": address}
	maps.Copy(conn, options)
	read := map[string]any{"topic": "plant/+/state", "topic_as": "topic"}
	maps.Copy(read, with)
	l := &line{t: t, settings: connector.SourceSettings{
		Connection: connector.Connection{Name: "plc", Kind: "mqtt", Options: conn, Secrets: map[string]secret.String{}},
		With:       read, Schema: schema, Instance: t.Name(), Logger: slog.New(slog.DiscardHandler),
	}}
	return l
}

// open starts a source from the cursor; what it delivers from now on is in rows.
func (l *line) open(cursor connector.Cursor) {
	l.t.Helper()
	l.settings.Resume = cursor
	src, err := mqtt.New().NewSource(l.settings)
	if err != nil {
		l.t.Fatal(err)
	}
	l.src, l.rows, l.failures, l.cursor = src, nil, nil, cursor
	l.t.Cleanup(func() { l.finish(src) })
}

// finish closes a source, which must not fail.
func (l *line) finish(src connector.Source) {
	l.t.Helper()
	if err := src.Close(); err != nil {
		l.t.Error(err)
	}
}

func (l *line) next() error {
	ctx, cancel := context.WithTimeout(l.t.Context(), 15*time.Second)
	defer cancel()
	d, err := l.src.Next(ctx)
	if err != nil {
		return err
	}
	l.add(d)
	return nil
}

func (l *line) add(d connector.Delivery) {
	if d.Cursor != nil {
		l.cursor = d.Cursor
	}
	l.failures = append(l.failures, d.Failed.Sample...)
	if d.Batch == nil {
		return
	}
	for i := range d.Batch.Len {
		row := make([]string, len(d.Batch.Cols))
		for c := range d.Batch.Cols {
			col := &d.Batch.Cols[c]
			switch {
			case col.Null(i):
				row[c] = "-"
			case col.Type == expr.Int:
				row[c] = strconv.FormatInt(col.Ints[i], 10)
			default:
				row[c] = string(col.Bytes(i))
			}
		}
		l.rows = append(l.rows, strings.Join(row, " "))
	}
}

// until reads until n rows are there; after is what happens after each delivery.
func (l *line) until(n int, after func()) {
	l.t.Helper()
	for len(l.rows) < n {
		if err := l.next(); err != nil {
			l.t.Fatalf("after %d of %d rows: %v", len(l.rows), n, err)
		}
		after()
	}
}

func (l *line) commit() {
	l.t.Helper()
	if err := l.src.Committed(l.t.Context(), l.cursor); err != nil {
		l.t.Fatal(err)
	}
}

func (l *line) want(rows ...string) {
	l.t.Helper()
	if !slices.Equal(l.rows, rows) {
		l.t.Fatalf("rows %q, want %q", l.rows, rows)
	}
}

func eachVersion(t *testing.T, test func(t *testing.T, version any)) {
	t.Helper()
	t.Parallel()
	for _, version := range []any{int64(5), "3.1.1"} {
		t.Run(fmt.Sprint(version), func(t *testing.T) { t.Parallel(); test(t, version) })
	}
}

func state(i int) string { return fmt.Sprintf(`{"id":%d,"name":"n%d"}`, i, i) }

func row(i int) string { return fmt.Sprintf("%d plant/a/state n%d", i, i) }

func TestMessagesBecomeRows(t *testing.T) {
	eachVersion(t, func(t *testing.T, version any) { //nolint:thelper // this is the test itself
		b := startBroker(t, "")
		l := newLine(t, "mqtt://"+b.address, map[string]any{"version": version}, nil)
		l.open(nil)
		if err := l.next(); err != nil || l.cursor == nil {
			t.Fatalf("the first delivery has cursor %v, error %v", l.cursor, err)
		}
		l.commit()
		p := b.publisher()
		publish(t, p, "plant/a/state", state(1))
		publish(t, p, "plant/b/other", state(2))
		publish(t, p, "plant/b/state", `{"id":"x"}`)
		publish(t, p, "plant/b/state", `{"id":3,"topic":"false"}`)
		l.until(2, l.commit)
		l.want("1 plant/a/state n1", "3 plant/b/state -")
		want := connector.FailedRecord{Where: "topic plant/b/state", Reason: "column id: the value is not of type int", Record: `{"id":"x"}`}
		if len(l.failures) != 1 || l.failures[0] != want {
			t.Fatalf("failures %+v", l.failures)
		}
	})
}

// TestKillBetweenCommitAndAcknowledgement cuts the connection after a commit whose acknowledgements never arrive, and goes on
// from the committed cursor: nothing is doubled, nothing is lost.
func TestKillBetweenCommitAndAcknowledgement(t *testing.T) {
	eachVersion(t, func(t *testing.T, version any) { //nolint:thelper // this is the test itself
		b := startBroker(t, "")
		via := startProxy(t, b.address)
		l := newLine(t, via.address, map[string]any{"version": version}, nil)
		l.open(nil)
		if err := l.next(); err != nil {
			t.Fatal(err)
		}
		p := b.publisher()
		const total = 100
		for i := range total {
			publish(t, p, "plant/a/state", state(i))
		}
		var want, got []string
		for i := range total {
			want = append(want, row(i))
		}
		for round := 0; len(got) < total; round++ {
			if round > total {
				t.Fatal("it does not end")
			}
			// The first delivery's acknowledgements go through, the second one's vanish, the third one is not committed.
			l.until(1, func() {})
			l.commit()
			got = append(got, l.rows...)
			committed := l.cursor
			if len(got) < total {
				l.rows = nil
				l.until(1, func() {})
				via.deaf.Store(true)
				l.commit()
				got = append(got, l.rows...)
				committed = l.cursor
			}
			via.cut() // as after kill -9: no DISCONNECT reaches the broker
			l.finish(l.src)
			via.deaf.Store(false)
			l.open(committed)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %d rows %q", len(got), got)
		}
		publish(t, p, "plant/a/state", state(total))
		l.until(1, l.commit)
		l.want(row(total))
	})
}

// TestReconnectDoublesNothing cuts the connection under a source that goes on living.
func TestReconnectDoublesNothing(t *testing.T) {
	eachVersion(t, func(t *testing.T, version any) { //nolint:thelper // this is the test itself
		b := startBroker(t, "")
		via := startProxy(t, b.address)
		l := newLine(t, via.address, map[string]any{"version": version}, nil)
		l.open(nil)
		p := b.publisher()
		if err := l.next(); err != nil {
			t.Fatal(err)
		}
		var want []string
		for i := range 200 {
			publish(t, p, "plant/a/state", state(i))
			want = append(want, row(i))
		}
		for n := 0; len(l.rows) < len(want); n++ {
			if err := l.next(); err != nil {
				if n > 1000 {
					t.Fatal(err)
				}
				continue // the next call connects anew
			}
			switch n % 4 {
			case 1:
				via.cut() // delivered, not committed
				l.commit()
			case 3:
				via.deaf.Store(true)
				l.commit()
				via.cut()
				via.deaf.Store(false)
			default:
				l.commit()
			}
		}
		l.want(want...)
	})
}

func TestWhatWasNotCommittedComesAgain(t *testing.T) {
	eachVersion(t, func(t *testing.T, version any) { //nolint:thelper // this is the test itself
		b := startBroker(t, "")
		l := newLine(t, b.address, map[string]any{"version": version}, nil)
		l.open(nil)
		if err := l.next(); err != nil {
			t.Fatal(err)
		}
		first := l.cursor
		p := b.publisher()
		publish(t, p, "plant/a/state", state(1))
		l.until(1, func() {})
		l.finish(l.src)
		publish(t, p, "plant/a/state", state(2))
		l.open(first)
		l.until(2, l.commit)
		l.want(row(1), row(2))
	})
}

// TestAnotherTopicReplacesTheSubscription: a new version of a flow must not get the old version's messages.
func TestAnotherTopicReplacesTheSubscription(t *testing.T) {
	eachVersion(t, func(t *testing.T, version any) { //nolint:thelper // this is the test itself
		b := startBroker(t, "")
		l := newLine(t, b.address, map[string]any{"version": version}, nil)
		l.open(nil)
		if err := l.next(); err != nil {
			t.Fatal(err)
		}
		l.finish(l.src)
		l.settings.With["topic"] = "plant/a/other"
		l.open(l.cursor)
		if err := l.next(); err != nil {
			t.Fatal(err)
		}
		p := b.publisher()
		publish(t, p, "plant/a/state", state(1))
		publish(t, p, "plant/a/other", state(2))
		l.until(1, l.commit)
		l.want("2 plant/a/other n2")
	})
}

func TestRetainedMessages(t *testing.T) {
	eachVersion(t, func(t *testing.T, version any) { //nolint:thelper // this is the test itself
		b := startBroker(t, "")
		p := b.publisher()
		publishAs(t, p, "plant/a/state", state(1), true)
		for name, retained := range map[string]bool{"ignored": false, "taken": true} {
			l := newLine(t, b.address, map[string]any{"version": version}, map[string]any{"retained": retained})
			l.settings.Instance += name
			l.open(nil)
			if err := l.next(); err != nil {
				t.Fatal(err)
			}
			want := []string{row(2)}
			if retained {
				l.until(1, l.commit)
				want = []string{row(1), row(2)}
				rows := l.rows
				l.finish(l.src)
				l.open(l.cursor) // taken once only
				l.rows = rows
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				for {
					d, err := l.src.Next(ctx)
					if err != nil {
						break
					}
					if d.Read > 0 {
						t.Fatalf("a retained message came again: %+v", d)
					}
				}
				cancel()
			}
			publish(t, p, "plant/a/state", state(2))
			l.until(len(want), l.commit)
			l.want(want...)
			l.finish(l.src)
		}
	})
}

func TestQoS0(t *testing.T) {
	eachVersion(t, func(t *testing.T, version any) { //nolint:thelper // this is the test itself
		b := startBroker(t, "")
		l := newLine(t, b.address, map[string]any{"version": version}, map[string]any{"qos": int64(0)})
		l.open(nil)
		if err := l.next(); err != nil {
			t.Fatal(err)
		}
		if traits := l.src.Traits(); traits.AckGated || traits.Replayable || traits.Bounded {
			t.Fatalf("traits %+v", traits)
		}
		publish(t, b.publisher(), "plant/a/state", state(1))
		l.until(1, func() {})
		l.want(row(1))
	})
}

func TestRefusedPassword(t *testing.T) {
	eachVersion(t, func(t *testing.T, version any) { //nolint:thelper // this is the test itself
		file := filepath.Join(t.TempDir(), "passwords")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b := startBroker(t, "allow_anonymous false\npassword_file "+file)
		l := newLine(t, b.address, map[string]any{"version": version, "username": "press"}, nil)
		l.settings.Connection.Secrets["password"] = secret.New("wrong")
		l.open(nil)
		err := l.next()
		var permanent *connector.PermanentError
		if !errors.As(err, &permanent) || !strings.Contains(err.Error(), b.address) || strings.Contains(err.Error(), "wrong") {
			t.Fatalf("error %v", err)
		}
	})
}

func TestUnreachableBroker(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	l := newLine(t, address, nil, nil)
	l.open(nil)
	err := l.next()
	var permanent *connector.PermanentError
	if err == nil || errors.As(err, &permanent) || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("error %v", err)
	}
}

func TestVeryLongMessageFails(t *testing.T) {
	t.Parallel()
	b := startBroker(t, "")
	l := newLine(t, b.address, map[string]any{"version": "3.1.1"}, nil)
	l.open(nil)
	if err := l.next(); err != nil {
		t.Fatal(err)
	}
	p := b.publisher()
	publish(t, p, "plant/a/state", `{"id":1,"name":"`+strings.Repeat("x", 9<<20)+`"}`)
	publish(t, p, "plant/a/state", state(2))
	l.until(1, l.commit)
	l.want(row(2))
	if len(l.failures) != 1 || l.failures[0].Reason != "longer than 8 MiB" {
		t.Fatalf("failures %+v", l.failures)
	}
}

func TestOptionErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		address       string
		options, with map[string]any
		option        string
	}{
		{"", nil, nil, "address"},
		{"http://x", nil, nil, "address"},
		{"mqtt://me:secret@x", nil, nil, "address"},
		{"x:1883", map[string]any{"version": "4"}, nil, "version"},
		{"x:1883", map[string]any{"ca_file": "/ca.pem"}, nil, "ca_file"},
		{"x:1883", map[string]any{"password": "open"}, nil, "password"},
		{"x:1883", map[string]any{"keep_alive": "1ms"}, nil, "keep_alive"},
		{"x:1883", map[string]any{"time_zone": "Mars/Base"}, nil, "time_zone"},
		{"x:1883", nil, map[string]any{"topic": "a/#/b"}, "topic"},
		{"x:1883", nil, map[string]any{"topic": "a+"}, "topic"},
		{"x:1883", nil, map[string]any{"qos": int64(2)}, "qos"},
		{"x:1883", nil, map[string]any{"topic_as": "topc"}, "topic_as"},
		{"x:1883", nil, map[string]any{"topic_as": "id"}, "topic_as"},
	} {
		_, err := mqtt.New().NewSource(newLine(t, tt.address, tt.options, tt.with).settings)
		var option *connector.OptionError
		if !errors.As(err, &option) || option.Option != tt.option {
			t.Errorf("%s %v %v: error %v, want one of option %s", tt.address, tt.options, tt.with, err, tt.option)
		}
	}
}
