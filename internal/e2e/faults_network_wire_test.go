package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wire carries the packets between a plant's network and the control plane's, as badly as a test wants. It has two TUN
// devices, so that the kernels' own TCP runs over it; queueing disciplines, which not every kernel has, are not needed.
type wire struct {
	// up leads from the plant to the control plane, down back.
	up, down *lane
}

// quality is what a direction of a wire does to packets.
type quality struct {
	// cut drops every packet, cut6 those of IPv6.
	cut, cut6 bool
	// dead is an IPv4 address at which nothing takes TCP any more.
	dead  netip.Addr
	delay time.Duration
	// loss is the share of the packets that are dropped, 0 to 1.
	loss float64
	// rate is bits per second; 0 for no bound. What would wait longer than 5 s is dropped.
	rate int
}

// drops says whether an IP packet is one of those that never arrive.
func (q quality) drops(data []byte) bool {
	const tcp = 6
	switch {
	case data[0]>>4 == 6:
		return q.cut6
	case !q.dead.IsValid() || len(data) < 20 || data[9] != tcp:
		return false
	default:
		a := q.dead.As4()
		return [4]byte(data[12:16]) == a || [4]byte(data[16:20]) == a
	}
}

const wireQueue = 5 * time.Second

// lane is one direction.
type lane struct {
	from, to *os.File
	queue    chan packet

	mu    sync.Mutex
	q     quality
	busy  time.Time
	rand  *rand.Rand
	bytes int
}

type packet struct {
	at   time.Time
	data []byte
}

func newLane(from, to *os.File) *lane {
	return &lane{from: from, to: to, queue: make(chan packet, 10_000), rand: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // a repeatable sequence is wanted
}

func (l *lane) set(q quality) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.q = q
}

// schedule says when a packet arrives; false when it never does.
func (l *lane) schedule(data []byte) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.q.cut || l.q.drops(data) || l.rand.Float64() < l.q.loss {
		return now, false
	}
	start := now
	if l.q.rate > 0 {
		if l.busy.After(start) {
			start = l.busy
		}
		if start.Sub(now) > wireQueue {
			return now, false
		}
		start = start.Add(time.Duration(len(data)*8) * time.Second / time.Duration(l.q.rate))
		l.busy = start
	}
	l.bytes += len(data)
	return start.Add(l.q.delay), true
}

// read takes packets from one network until its device is closed.
func (l *lane) read() {
	defer close(l.queue)
	buffer := make([]byte, 65536)
	for {
		n, err := l.from.Read(buffer)
		if err != nil {
			return
		}
		if n == 0 {
			continue
		}
		at, ok := l.schedule(buffer[:n])
		if !ok {
			continue
		}
		select {
		case l.queue <- packet{at, append([]byte(nil), buffer[:n]...)}:
		default:
		}
	}
}

// write puts them into the other when they are due.
func (l *lane) write() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p := range l.queue {
		timer.Reset(time.Until(p.at))
		<-timer.C
		if _, err := l.to.Write(p.data); err != nil {
			continue
		}
	}
}

func (w *wire) set(q quality) {
	w.up.set(q)
	w.down.set(q)
}

func (w *wire) start(t *testing.T) {
	t.Helper()
	var pumps sync.WaitGroup
	for _, l := range []*lane{w.up, w.down} {
		pumps.Go(l.read)
		pumps.Go(l.write)
	}
	t.Cleanup(func() {
		w.up.from.Close()   //nolint:errcheck // ends the pumps
		w.down.from.Close() //nolint:errcheck // as above
		pumps.Wait()
	})
}

// openTUN makes a TUN device in the network of the calling thread.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("make the device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ip runs commands of iproute2 in the network of the calling thread.
func ip(commands ...string) error {
	for _, c := range commands {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil { //nolint:gosec,noctx // a handful of fixed commands that return at once
			return fmt.Errorf("ip %s: %w: %s (is iproute2 installed?)", c, err, out)
		}
	}
	return nil
}

// plant is a network of its own, with its own DNS settings, at the other end of a wire.
type plant struct {
	t    *testing.T
	work chan func()
	gone chan struct{}
	wire *wire
	// cloud and cloud6 are the addresses of the control plane's end of the wire, self that of the plant's.
	cloud, cloud6, self string
}

// newPlant makes the plant of that number, whose DNS servers are at the control plane's end unless resolv says otherwise.
func newPlant(t *testing.T, number int, resolv string) *plant {
	t.Helper()
	p := &plant{
		t: t, work: make(chan func()), gone: make(chan struct{}),
		cloud: fmt.Sprintf("10.77.%d.1", number), self: fmt.Sprintf("10.77.%d.2", number), cloud6: fmt.Sprintf("fd77:%x::1", number),
	}
	dir := t.TempDir()
	if resolv == "" {
		resolv = "nameserver " + p.cloud + "\n"
	}
	files := map[string]string{"/etc/resolv.conf": resolv, "/etc/hosts": "127.0.0.1 localhost\n"}
	for name, text := range files {
		if err := os.WriteFile(dir+name[len("/etc"):], []byte(text), 0o644); err != nil { //nolint:gosec // for every account
			t.Fatal(err)
		}
	}
	go p.live()
	var inside *os.File
	err := p.do(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a network: %w", err)
		}
		for name := range files {
			if err = unix.Mount(dir+name[len("/etc"):], name, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("replace %s: %w", name, err)
			}
		}
		if inside, err = openTUN("plant0"); err != nil {
			return err
		}
		return ip("link set lo up", "addr add "+p.self+"/30 dev plant0", fmt.Sprintf("-6 addr add fd77:%x::2/64 dev plant0 nodad", number),
			"link set plant0 up", "route add default dev plant0", "-6 route add default dev plant0")
	})
	if err != nil {
		t.Fatal(err)
	}
	device := fmt.Sprintf("cloud%d", number)
	outside, err := openTUN(device)
	if err != nil {
		t.Fatal(err)
	}
	if err := ip("addr add "+p.cloud+"/30 dev "+device, "-6 addr add "+p.cloud6+"/64 dev "+device+" nodad", "link set "+device+" up"); err != nil {
		t.Fatal(err)
	}
	p.wire = &wire{up: newLane(inside, outside), down: newLane(outside, inside)}
	p.wire.start(t)
	t.Cleanup(func() {
		close(p.work)
		<-p.gone
	})
	return p
}

// live is the plant's thread. It ends with the goroutine, since nothing else may run in its namespaces.
func (p *plant) live() {
	runtime.LockOSThread()
	defer close(p.gone)
	for work := range p.work {
		work()
	}
}

// do runs something in the plant's network.
func (p *plant) do(work func() error) error {
	done := make(chan error, 1)
	p.work <- func() { done <- work() }
	return <-done
}
