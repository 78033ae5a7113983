//go:build unix

package agent

import (
	"bytes"
	"context"
	_ "embed" // the flow's text
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// W4 of docs/benchmarks.md. It stands here, because it runs what the agent runs: the supervisor with the staging behind it.
var (
	tagReport  = flag.String("tag-report", "", "write what BenchmarkTags measured to this file, as JSON")
	tagSeconds = flag.Int("tag-seconds", 3, "for how long BenchmarkTags measures in real time")
	tagHeap    = flag.String("tag-heap", "", "write a profile of the heap to this file at the end of real_time")
	tagPast    = flag.Int("tag-past", 600, "how many seconds of data BenchmarkTags works off as fast as it can")
)

const (
	tagFlows    = 200
	tagsPerFlow = 50
	tags        = tagFlows * tagsPerFlow
	// tagName is the length of a tag's name.
	tagName = 6
	// tagPeriod is after how many seconds a tag's course repeats.
	tagPeriod = 300
	// firstTagSecond is 2026-01-01T00:00:00Z, the start of a minute.
	firstTagSecond = 1767225600
)

//go:embed testdata/tags.yaml
var tagFlow []byte

// tagRead reads what tagFlow reads and keeps nothing of it.
//
//go:embed testdata/tags-read.yaml
var tagRead []byte

// tagMeasure is what one way of running the flows has used.
type tagMeasure struct {
	Mode string `json:"mode"`
	// Records were delivered, Insights staged and taken away again, in CPU and Wall time.
	Records  int           `json:"records"`
	Insights int64         `json:"insights"`
	CPU      time.Duration `json:"cpu_ns"`
	Wall     time.Duration `json:"wall_ns"`
	// PeakBytes is the most memory that the process has had so far, with its program and the pages of mapped files.
	PeakBytes int64 `json:"peak_bytes"`
	// OwnBytes is what it has of its own at the end, without those; 0 where the system does not tell.
	OwnBytes int64 `json:"own_bytes"`
}

// BenchmarkTags runs 10,000 tags at 1 Hz as 200 continuous flows. In past, ten minutes of data are there at once. In
// real_time they come as time passes, each flow at a moment of its own. In read_only they come in the same way and the flows
// drop them, which tells how much of real_time is the harness.
func BenchmarkTags(b *testing.B) {
	if *tagHeap == "" {
		runtime.MemProfileRate = 0 // as in the agent, whose linker finds nothing that reads such a profile
	}
	defer keepMemorySmall(b.Context(), heapLimit(DefaultMemoryLimit))()
	measured := map[string]tagMeasure{}
	b.Run("past", func(b *testing.B) {
		for b.Loop() {
			measured["past"] = runPast(b, *tagPast)
		}
		measured["past"].show(b)
	})
	b.Run("real_time", func(b *testing.B) {
		for b.Loop() {
			measured["real_time"] = runRealTime(b, tagFlow)
		}
		measured["real_time"].show(b)
	})
	b.Run("read_only", func(b *testing.B) {
		for b.Loop() {
			measured["read_only"] = runRealTime(b, tagRead)
		}
		measured["read_only"].show(b)
	})
	if *tagReport == "" {
		return
	}
	var list []tagMeasure
	for _, mode := range []string{"past", "real_time", "read_only"} {
		if m, ok := measured[mode]; ok {
			m.Mode = mode
			list = append(list, m)
		}
	}
	text, err := json.Marshal(list)
	if err == nil {
		err = os.WriteFile(*tagReport, text, 0o600)
	}
	if err != nil {
		b.Fatal(err)
	}
}

func (m tagMeasure) show(b *testing.B) {
	b.Helper()
	b.ReportMetric(float64(m.Records)/m.CPU.Seconds(), "records/cpu-s")
	b.ReportMetric(100*m.CPU.Seconds()/m.Wall.Seconds(), "%core")
	b.ReportMetric(float64(m.PeakBytes)/1e6, "peak-MB")
	b.ReportMetric(float64(m.OwnBytes)/1e6, "own-MB")
}

// runPast measures from the start of the flows until all is processed, committed and taken out of the staging.
func runPast(b *testing.B, seconds int) tagMeasure {
	b.Helper()
	p := newTagPlant(b, tagFlow, seconds)
	before, started := usedCPU(b), time.Now()
	stop := p.start(b)
	p.processed.Wait()
	stop()
	m := tagMeasure{Records: tags * seconds, CPU: usedCPU(b) - before, Wall: time.Since(started), PeakBytes: peakMemory(b), OwnBytes: ownMemory(b), Insights: p.minutes.Load() + p.others.Load()}
	// A window closes with the first record behind it.
	if want := int64(tags * ((seconds - 1) / 60)); p.minutes.Load() != want {
		b.Fatalf("there are %d minutes of tags, want %d", p.minutes.Load(), want)
	}
	if seconds > tagPeriod && p.others.Load() == 0 {
		b.Fatal("no tag has passed its threshold")
	}
	return m
}

// runRealTime measures from a moment on when every flow has begun.
func runRealTime(b *testing.B, flow []byte) tagMeasure {
	b.Helper()
	span := time.Duration(*tagSeconds) * time.Second
	p := newTagPlant(b, flow, 0)
	stop := p.start(b)
	p.begun.Wait()
	before, started, records, insights := usedCPU(b), time.Now(), p.records.Load(), p.minutes.Load()+p.others.Load()
	<-time.NewTimer(span).C
	m := tagMeasure{
		Records: int(p.records.Load() - records), Insights: p.minutes.Load() + p.others.Load() - insights,
		CPU: usedCPU(b) - before, Wall: time.Since(started), PeakBytes: peakMemory(b), OwnBytes: ownMemory(b),
	}
	writeHeap(b)
	stop()
	if want := int(span.Seconds()) * tags; m.Records < want*8/10 {
		b.Fatalf("the tags gave %d records in %s, want about %d", m.Records, span, want)
	}
	return m
}

func writeHeap(b *testing.B) {
	b.Helper()
	if *tagHeap == "" {
		return
	}
	f, err := os.Create(*tagHeap)
	if err == nil {
		err = errors.Join(pprof.WriteHeapProfile(f), f.Close())
	}
	if err != nil {
		b.Error(err)
	}
}

func usedCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func peakMemory(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Maxrss << 10
}

// ownMemory is the resident memory that no file is behind.
func ownMemory(b *testing.B) int64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatalf("the resident memory is not told: %v", err)
	}
	return kib << 10
}

// tagPlant is the plant of the benchmark: a connector whose tags lie in memory, and what comes out of the flows.
type tagPlant struct {
	stage   *stage.Stage
	reports *reports
	flow    []byte
	// past is how many seconds of data are there at once, 0 for data that comes as time passes.
	past   int
	course [tagPeriod]float64

	begun, processed sync.WaitGroup
	sources          atomic.Int64
	records          atomic.Int64
	minutes, others  atomic.Int64
}

func newTagPlant(b *testing.B, flow []byte, past int) *tagPlant {
	b.Helper()
	st, err := stage.Open(b.Context(), stage.Settings{Dir: filepath.Join(b.TempDir(), "stage"), Owner: "bench", Logger: slog.New(slog.DiscardHandler), MinFreeBytes: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := st.Close(); err != nil {
			b.Error(err)
		}
	})
	p := &tagPlant{stage: st, flow: flow, past: past}
	for i := range p.course {
		p.course[i] = 50 + 30*math.Sin(2*math.Pi*float64(i)/tagPeriod) + float64(i*7919%100)/100
	}
	p.begun.Add(tagFlows)
	p.processed.Add(tagFlows)
	return p
}

// start runs the flows; stop ends them, takes what is staged, and waits.
func (p *tagPlant) start(b *testing.B) (stop func()) {
	b.Helper()
	log := slog.New(slog.NewTextHandler(b.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	reports, err := newReports(b.Context(), p.stage, log)
	if err != nil {
		b.Fatal(err)
	}
	settings := supervisor.Settings{
		Staging: staging{reports: reports, stage: p.stage}, AgentID: "bench", Logger: log,
		Connector: func(string) (connector.Connector, bool) { return p, true },
	}
	sup := supervisor.New(settings)
	reports.changed, p.reports = sup.Reported(), reports
	deployments := make([]supervisor.Deployment, tagFlows)
	for i := range deployments {
		name := fmt.Sprintf("tags-%03d", i)
		deployments[i] = supervisor.Deployment{
			ID: name, FlowID: name, Name: name, Version: 1, Definition: p.flow,
			Connections: []connector.Connection{{Name: "plc", Kind: "tags"}},
		}
	}
	// A flow that is refused would never process anything.
	if err := supervisor.Check(settings, deployments[0]); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := sup.Run(ctx); !errors.Is(err, context.Canceled) {
			b.Errorf("the supervisor gave %v", err)
		}
	})
	running.Go(func() {
		if err := newProcessors().run(ctx); err != nil {
			b.Error(err)
		}
	})
	sending, stopSending := context.WithCancel(b.Context())
	var sender sync.WaitGroup
	sender.Go(func() {
		if err := p.send(sending); err != nil {
			b.Error(err)
		}
	})
	sup.Apply(deployments)
	return func() {
		cancel()
		running.Wait()
		stopSending()
		sender.Wait()
		if err := p.take(context.WithoutCancel(b.Context())); err != nil {
			b.Error(err)
		}
	}
}

// send takes insights and reports out of the staging as soon as they are there, as a tunnel with a control plane behind it
// does.
func (p *tagPlant) send(ctx context.Context) error {
	for {
		select {
		case <-p.stage.OutboxChanged():
			if err := p.take(context.WithoutCancel(ctx)); err != nil {
				return err
			}
		case <-p.reports.ReportsChanged():
			if err := p.takeReports(context.WithoutCancel(ctx)); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *tagPlant) takeReports(ctx context.Context) error {
	for after := uint64(0); ; {
		list, err := p.reports.ReadReports(ctx, after, 1<<7)
		if err != nil || len(list) == 0 {
			return err
		}
		after = list[len(list)-1].Number
		if err := p.reports.DropReports(ctx, after); err != nil {
			return err
		}
	}
}

func (p *tagPlant) take(ctx context.Context) error {
	for {
		records, err := p.stage.ReadOutbox(ctx, p.stage.Stats().Acknowledged, 2000, 1<<20)
		if err != nil || len(records) == 0 {
			return err
		}
		for _, r := range records {
			if bytes.Contains(r.Payload, []byte("tag_minute")) {
				p.minutes.Add(1)
			} else {
				p.others.Add(1)
			}
		}
		if err := p.stage.Acknowledge(ctx, records[len(records)-1].Seq); err != nil {
			return err
		}
	}
}

// Spec is connector.Connector's.
func (*tagPlant) Spec() flowdef.ConnectorSpec { return flowdef.ConnectorSpec{Kind: "tags"} }

// NewSource is connector.Connector's.
func (p *tagPlant) NewSource(set connector.SourceSettings) (connector.Source, error) {
	s := &tagSource{plant: p, batch: column.NewBatch(set.Schema)}
	for i, c := range set.Schema {
		switch c.Name {
		case "ts":
			s.time = i
		case "tag":
			s.name = i
		case "value":
			s.value = i
		}
	}
	return s, nil
}

// tagSource is 50 tags, read once a second.
type tagSource struct {
	plant             *tagPlant
	batch             *column.Batch
	time, name, value int
	// number tells the sources apart, from 1 on; it is given at the first use, because the supervisor tries each source.
	// names are the tags' in one piece.
	number int
	names  []byte
	second int
	next   time.Time
	wait   *time.Timer
}

func (*tagSource) Traits() connector.Traits { return connector.Traits{} }

func (s *tagSource) Next(ctx context.Context) (connector.Delivery, error) {
	p := s.plant
	if s.number == 0 {
		s.number = int(p.sources.Add(1))
		s.next = time.Now().Add(time.Duration(s.number%tagFlows) * time.Second / tagFlows)
	}
	if p.past > 0 && s.second == p.past {
		p.processed.Done()
		<-ctx.Done()
		return connector.Delivery{}, context.Cause(ctx)
	}
	if p.past == 0 {
		if s.wait == nil {
			s.wait = time.NewTimer(time.Until(s.next))
		} else {
			s.wait.Reset(time.Until(s.next))
		}
		select {
		case <-s.wait.C:
		case <-ctx.Done():
			return connector.Delivery{}, context.Cause(ctx)
		}
		s.next = s.next.Add(time.Second)
	}
	if s.second == 0 {
		p.begun.Done()
	}
	s.fill()
	s.second++
	p.records.Add(tagsPerFlow)
	return connector.Delivery{Batch: s.batch, Read: tagsPerFlow, Bytes: 8 * tagsPerFlow}, nil
}

func (s *tagSource) fill() {
	s.batch.Reset()
	s.batch.Len = tagsPerFlow
	at := int64(firstTagSecond+s.second) * 1_000_000
	for i := range tagsPerFlow {
		tag := s.number*tagsPerFlow + i
		if len(s.names) < tagsPerFlow*tagName {
			s.names = fmt.Appendf(s.names, "T%05d", tag)
		}
		s.batch.Cols[s.time].Ints = append(s.batch.Cols[s.time].Ints, at)
		s.batch.Cols[s.name].AppendStr(s.names[i*tagName : (i+1)*tagName])
		s.batch.Cols[s.value].Floats = append(s.batch.Cols[s.value].Floats, s.plant.course[(s.second+tag)%tagPeriod])
	}
}

func (*tagSource) Committed(context.Context, connector.Cursor) error { return nil }
func (*tagSource) Close() error                                      { return nil }
