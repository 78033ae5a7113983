package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// PrintTable prints one line for each engine and workload. The ratios are of records per processor second.
func PrintTable(out io.Writer, list []Measurement) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\tengine\trecords/cpu s\trecords/wall s\tpeak MB\tcpu: DuckDB\tscanner\twall: DuckDB\tscanner\t")
	for _, m := range list {
		if m.Problem != "" {
			fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t\t\t\t\t\n", m.Workload, m.Engine)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f\t", m.Workload, m.Engine, rate(m.PerCPU), rate(m.PerWall), float64(m.PeakBytes)/1e6)
		for _, of := range []func(Measurement) float64{
			func(m Measurement) float64 { return m.PerCPU }, func(m Measurement) float64 { return m.PerWall },
		} {
			for _, other := range []string{"DuckDB", "scanner, "} {
				fmt.Fprintf(w, "%s\t", ratio(list, m, other, of))
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	for _, m := range list {
		if m.Problem != "" {
			fmt.Fprintf(out, "%s, %s: %s\n", m.Workload, m.Engine, m.Problem)
		}
	}
	return nil
}

// PrintTags prints what W4 used.
func PrintTags(out io.Writer, list []TagMeasurement) error {
	if len(list) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\tway\trecords\tinsights\tseconds\trecords/cpu s\trecords/wall s\tpeak MB\tof one core\t")
	for _, m := range list {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%.1f\t%s\t%s\t%.1f\t%.1f %%\t\n", tagName, m.Mode, m.Records, m.Insights, m.Wall.Seconds(),
			rate(float64(m.Records)/m.CPU.Seconds()), rate(float64(m.Records)/m.Wall.Seconds()), float64(m.PeakBytes)/1e6, 100*m.CoreShare())
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	return nil
}

// PrintTunnel prints what the tunnel does beside plain TLS.
func PrintTunnel(out io.Writer, list []TunnelMeasurement) error {
	if len(list) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\tway\techo p50 µs\tp99 µs\tMB/s up\tcpu s/GB\tidle\tKiB each\tcollected\t")
	for _, m := range list {
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.0f\t%.2f\t%d\t%.1f\t%.1f\t\n", tunnelName, m.Way, micros(m.EchoP50), micros(m.EchoP99),
			m.PerSecond/1e6, m.CPUPerGB.Seconds(), m.Idle, float64(m.Resident)/1024, float64(m.Collected)/1024)
	}
	if len(list) == 2 {
		t, p := list[0], list[1]
		fmt.Fprintf(w, "\tratio\t%.2f\t%.2f\t%.2f\t%.2f\t\t%.2f\t%.2f\t\n", micros(t.EchoP50)/micros(p.EchoP50), micros(t.EchoP99)/micros(p.EchoP99),
			t.PerSecond/p.PerSecond, t.CPUPerGB.Seconds()/p.CPUPerGB.Seconds(), float64(t.Resident)/float64(p.Resident), float64(t.Collected)/float64(p.Collected))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// rate is records per second in three digits.
func rate(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.1fk", v/1e3)
	}
	return fmt.Sprintf("%.1f", v)
}

// ratio compares with the best of the engines whose name begins so.
func ratio(list []Measurement, m Measurement, prefix string, of func(Measurement) float64) string {
	best := 0.0
	for _, o := range list {
		if o.Workload == m.Workload && o.Problem == "" && strings.HasPrefix(o.Engine, prefix) {
			best = max(best, of(o))
		}
	}
	if best == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", of(m)/best)
}
