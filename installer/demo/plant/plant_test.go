package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, nil) }

var begin = time.Date(2026, 1, 5, 6, 0, 0, 0, time.UTC)

// shift lets the plant of a seed work for that long.
func shift(seed uint64, d time.Duration) (*plant, []reading, map[string]order) {
	p, orders := newPlant(seed, begin), make(map[string]order)
	p.orderChanged = func(o order) { orders[o.ID] = o }
	p.announceOrders()
	var readings []reading
	for range int(d / time.Second) {
		readings = append(readings, p.second()...)
	}
	return p, readings, orders
}

func TestTheSameSeedGivesTheSamePlant(t *testing.T) {
	t.Parallel()
	a, readings, orders := shift(7, time.Hour)
	b, again, ordersAgain := shift(7, time.Hour)
	if !reflect.DeepEqual(readings, again) || !reflect.DeepEqual(orders, ordersAgain) || !reflect.DeepEqual(a.lathe.done, b.lathe.done) {
		t.Fatal("two plants of one seed differ")
	}
	if _, other, _ := shift(8, time.Hour); reflect.DeepEqual(readings, other) {
		t.Fatal("two seeds give one plant")
	}
}

func TestTemperatureFollowsLoad(t *testing.T) {
	t.Parallel()
	p := newPress(1, 1, begin)
	p.temp, p.wear = ambient, 0
	last := p.temp
	for range 600 {
		p.heat(true)
		if p.temp <= last || p.temp > ambient+loadRise {
			t.Fatalf("under load it went from %v to %v", last, p.temp)
		}
		last = p.temp
	}
	if p.temp < ambient+0.95*loadRise {
		t.Fatalf("after ten minutes of load it is only %v", p.temp)
	}
	first := p.temp
	p.heat(false)
	if drop := first - p.temp; drop <= 0 || drop > 1 {
		t.Fatalf("a second of rest cools by %v", drop)
	}
}

func TestAShiftMakesSense(t *testing.T) {
	t.Parallel()
	_, readings, orders := shift(1, 8*time.Hour)
	states, made := make(map[string]int), make(map[string]int)
	warm := make(map[string][2]float64) // by state: sum of temperatures and how many
	for _, r := range readings {
		states[r.State]++
		if r.Scrap > r.Count || r.Count < 0 || r.Count > 2 {
			t.Fatalf("%d parts of which %d scrap in a second", r.Count, r.Scrap)
		}
		if _, known := orders[r.OrderID]; !known {
			t.Fatalf("the MES does not know the order %s", r.OrderID)
		}
		if orders[r.OrderID].Machine != r.Machine {
			t.Fatalf("press %s works on %s of press %s", r.Machine, r.OrderID, orders[r.OrderID].Machine)
		}
		made[r.OrderID] += r.Count - r.Scrap
		w := warm[r.State]
		warm[r.State] = [2]float64{w[0] + r.Temp, w[1] + 1}
	}
	total := len(readings)
	if n := states[running]; n < total*7/10 || n == total {
		t.Errorf("the presses run %d of %d seconds", n, total)
	}
	for _, s := range []string{idle, jammed, down} {
		if states[s] == 0 || states[s] > total/5 {
			t.Errorf("state %s in %d of %d seconds", s, states[s], total)
		}
	}
	if run, rest := warm[running][0]/warm[running][1], warm[down][0]/warm[down][1]; run < rest+5 {
		t.Errorf("running presses have %v degrees, those that are down %v", run, rest)
	}
	done := 0
	for id, o := range orders {
		if o.Status != "DONE" || strings.HasSuffix(id, "0001") { // the first ones had begun before
			continue
		}
		done++
		if made[id] < o.Planned || made[id] > o.Planned+1 {
			t.Errorf("order %s is done with %d good parts of %d", id, made[id], o.Planned)
		}
	}
	if done < presses {
		t.Errorf("only %d orders were done", done)
	}
}

func TestLatheDropsWholeFiles(t *testing.T) {
	t.Parallel()
	dir, p := t.TempDir(), newPlant(1, begin)
	var cycles int
	for range 200 {
		p.second()
		done := p.lathe.finished(p.now)
		cycles += len(done)
		if len(done) == 0 {
			continue
		}
		if err := dropFile(dir, p.now, done); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 10 || cycles < 25 || cycles > 40 {
		t.Fatalf("%d files with %d cycles in 200 seconds", len(entries), cycles)
	}
	text, err := os.ReadFile(filepath.Join(dir, entries[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "\n")
	if head != "ts;part_id;spindle_rpm;torque_nm;tool_wear_min;temp_c;cycle_s;ok" || !strings.HasPrefix(rest, "2026-01-05T06:00:") {
		t.Fatalf("the file holds %q", text)
	}
}

// TestThePlantSpeaks runs all of it and listens as an outsider would.
func TestThePlantSpeaks(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir, db := t.TempDir(), pgtest.New(t)
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, options{
			mqttListen: address, mqttUser: "press", mqttPasswordFile: password,
			mesURL: db.OwnerURL(), latheDir: filepath.Join(dir, "lathe"), seed: 1, speed: 200,
		}, slog.New(slog.DiscardHandler))
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	heard := make(chan reading, 1000)
	client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetUsername("press").SetPassword("secret").SetConnectRetry(true).SetConnectRetryInterval(50 * time.Millisecond))
	if token := client.Connect(); !token.WaitTimeout(20*time.Second) || token.Error() != nil {
		t.Fatalf("connect: %v", token.Error())
	}
	defer client.Disconnect(0)
	client.Subscribe("plant/press/+/state", 1, func(_ paho.Client, m paho.Message) {
		var r reading
		if err := json.Unmarshal(m.Payload(), &r); err != nil || m.Topic() != "plant/press/"+strings.ToLower(r.Machine)+"/state" {
			t.Errorf("topic %s: %s", m.Topic(), m.Payload())
		}
		select {
		case heard <- r:
		default:
		}
	})
	machines := make(map[string]bool)
	var orderID string
	for len(machines) < presses {
		select {
		case r := <-heard:
			machines[r.Machine] = true
			orderID = r.OrderID
		case <-time.NewTimer(20 * time.Second).C:
			t.Fatalf("only %d presses speak", len(machines))
		}
	}
	conn, err := pgx.Connect(t.Context(), db.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var status string
	if err := conn.QueryRow(t.Context(), "SELECT status FROM mes.work_orders WHERE order_id = $1", orderID).Scan(&status); err != nil || status == "PLANNED" {
		t.Fatalf("order %s has status %q, error %v", orderID, status, err)
	}
	wrong := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetUsername("press").SetPassword("guess"))
	if token := wrong.Connect(); token.WaitTimeout(10*time.Second) && token.Error() == nil {
		t.Fatal("the broker lets a wrong password in")
	}
}

func TestHelpAndBadFlags(t *testing.T) {
	t.Parallel()
	if err := start(t.Context(), []string{"-speed", "0"}); err == nil || !strings.Contains(err.Error(), "-speed") {
		t.Errorf("error %v", err)
	}
	if err := start(t.Context(), []string{"extra"}); err == nil || !strings.Contains(err.Error(), "extra") {
		t.Errorf("error %v", err)
	}
}
