package stage_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// benchPayload is about the size of an insight.
const benchPayload = 200

// BenchmarkCommit stages records in commits of 1, 100 and 1,000, with one flow and with eight at the same time, beside
// bare bbolt, which stores the same records in one file and one transaction per commit. Everything is synced.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 100, 1000} {
		insights := make([][]byte, size)
		for i := range insights {
			insights[i] = make([]byte, benchPayload)
		}
		for _, flows := range []int{1, 8} {
			b.Run(fmt.Sprintf("stage/%d/flows=%d", size, flows), func(b *testing.B) { benchStage(b, insights, flows) })
		}
		b.Run(fmt.Sprintf("bbolt/%d", size), func(b *testing.B) { benchBolt(b, insights) })
	}
}

func benchStage(b *testing.B, insights [][]byte, flows int) {
	b.Helper()
	st, err := stage.Open(b.Context(), stage.Settings{Dir: b.TempDir(), MinFreeBytes: 1, MaxBytes: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	b.SetParallelism(flows)
	b.RunParallel(func(pb *testing.PB) {
		flow := fmt.Sprint("flow", next.Add(1))
		for number := uint64(1); pb.Next(); number++ {
			last, err := st.Commit(b.Context(), stage.Checkpoint{
				Flow: flow, Number: number, Insights: insights,
				Cursors: map[string][]byte{"read": binary.BigEndian.AppendUint64(nil, number)},
			})
			if err == nil && number%1000 == 0 {
				err = st.Acknowledge(b.Context(), last)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N*len(insights))/b.Elapsed().Seconds(), "records/s")
	if err := st.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchBolt(b *testing.B, insights [][]byte) {
	b.Helper()
	db, err := bolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	seq := uint64(0)
	for b.Loop() {
		err := db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("records"))
			if err != nil {
				return err
			}
			for _, p := range insights {
				seq++
				if err := bucket.Put(binary.BigEndian.AppendUint64(nil, seq), p); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(insights))/b.Elapsed().Seconds(), "records/s")
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkManyNewEntries commits 100,000 new entries of an operator's state at once, and as many again between them, in
// the order of their keys and scattered.
func BenchmarkManyNewEntries(b *testing.B) {
	const n = 100_000
	for _, order := range []string{"sorted", "scattered"} {
		b.Run(order, func(b *testing.B) {
			for b.Loop() {
				st, err := stage.Open(b.Context(), stage.Settings{Dir: b.TempDir(), MinFreeBytes: 1})
				if err != nil {
					b.Fatal(err)
				}
				for number := range uint64(2) {
					changes := make([]stage.Change, n)
					for i := range changes {
						key := uint64(i)*2 + number
						if order == "scattered" {
							key *= 0x9E3779B97F4A7C15
						}
						changes[i] = stage.Change{Step: "sums", Key: fmt.Sprintf("%016x", key), Value: make([]byte, 16)}
					}
					if _, err := st.Commit(b.Context(), stage.Checkpoint{Flow: "f", Number: number + 1, Changes: changes}); err != nil {
						b.Fatal(err)
					}
				}
				if err := st.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*2*n)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

// BenchmarkManyFlows commits 200 flows at once, each of which has changed all of its 50 entries, as flows over live tags
// do every second. An operation is one such second.
func BenchmarkManyFlows(b *testing.B) {
	const flows, entries = 200, 50
	st, err := stage.Open(b.Context(), stage.Settings{Dir: b.TempDir(), MinFreeBytes: 1})
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 80)
	numbers := make([]uint64, flows)
	b.ReportAllocs()
	for b.Loop() {
		var wg sync.WaitGroup
		for f := range flows {
			wg.Go(func() {
				numbers[f]++
				c := stage.Checkpoint{Flow: fmt.Sprintf("flow %d", f), Number: numbers[f]}
				for e := range entries {
					c.Changes = append(c.Changes, stage.Change{Step: "per_minute", Key: fmt.Sprintf("g2026-01-01T%05d", e), Value: value})
				}
				if _, err := st.Commit(b.Context(), c); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.StopTimer()
	if err := st.Close(); err != nil {
		b.Fatal(err)
	}
}
