package expr_test

import (
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/expr"
)

func converted(t *testing.T, x float64, from, to string) float64 {
	t.Helper()
	c, err := expr.NewConversion(from, to)
	if err != nil {
		t.Fatal(err)
	}
	return c.Convert(x)
}

// ulps is how many floats lie between two of one sign.
func ulps(a, b float64) uint64 {
	x, y := math.Float64bits(a), math.Float64bits(b)
	return max(x, y) - min(x, y)
}

func TestConversionsWorkedByHand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		x        float64
		from, to string
		want     float64
	}{
		{212, "degF", "degC", 100},
		{-40, "degC", "degF", -40},
		{0, "degC", "K", 273.15},
		{300, "K", "degC", 26.85},
		{98.6, "degF", "degC", 37},
		{491.67, "degR", "degC", 0},
		{1, "bar", "kPa", 100},
		{1, "atm", "Torr", 760},
		{273.15, "K", "degC", 0},
		{14.5, "psi", "Pa", 14.5 * 6894.757293168361},
		{1, "psi", "Pa", 6894.757293168361},
		{1, "inHg", "Pa", 3386.388640341},
		{1, "in", "mm", 25.4},
		{26.2, "mi", "km", 42.1648128},
		{1, "ha", "m2", 10000},
		{1, "acre", "ft2", 43560},
		{1, "gal", "in3", 231},
		{1, "bbl", "gal", 42},
		{1, "galUK", "l", 4.54609},
		{1, "lb", "g", 453.59237},
		{16, "oz", "lb", 1},
		{7000, "gr", "lb", 1},
		{1, "ton", "lb", 2000},
		{1, "tonUK", "lb", 2240},
		{36, "km/h", "m/s", 10},
		{60, "mph", "ft/s", 88},
		{1, "kn", "km/h", 1.852},
		{60, "rpm", "rad/s", 2 * math.Pi},
		{1500, "rpm", "rps", 25},
		{180, "deg", "rad", math.Pi},
		{100, "gon", "deg", 90},
		{1, "kWh", "MJ", 3.6},
		{1, "Btu", "J", 1055.05585262},
		{1, "hp", "W", 745.6998715822702},
		{1, "PS", "W", 735.49875},
		{1, "TR", "Btu/h", 12000},
		{1, "lbf.ft", "lbf.in", 12},
		{1, "lbf.ft", "Nm", 1.3558179483314004},
		{1, "kgf", "N", 9.80665},
		{1, "gal/min", "l/min", 3.785411784},
		{1, "m3/h", "l/min", 1000.0 / 60},
		{1, "t/h", "kg/s", 1 / 3.6},
		{1, "Ah", "C", 3600},
		{5, "%", "ppm", 50000},
		{1, "KiB", "bit", 8192},
		{1, "mS/cm", "S/m", 0.1},
	} {
		if got := converted(t, c.x, c.from, c.to); math.Abs(got-c.want) > math.Abs(c.want)*4e-16 {
			t.Errorf("%v %s are %v %s, want %v", c.x, c.from, got, c.to, c.want)
		}
	}
}

func TestConversionsRoundTrip(t *testing.T) {
	t.Parallel()
	for _, q := range expr.Quantities() {
		base := false
		for _, a := range q.Units {
			base = base || a.Name == q.Base && a.Factor == "1" && a.Offset == ""
			for _, number := range strings.FieldsFunc(a.Factor+"*"+a.Offset, func(r rune) bool { return r == '*' || r == '/' }) {
				if _, ok := new(big.Rat).SetString(number); !ok && number != "pi" {
					t.Errorf("the factor of %s cannot be read", a.Name)
				}
			}
			for _, b := range q.Units {
				for _, x := range []float64{1, 3, 1.0 / 3, 12345.678, 1e-9, 7e20} {
					there := converted(t, x, a.Name, b.Name)
					back := converted(t, there, b.Name, a.Name)
					// Near its zero an offset unit has only what the other one resolves.
					slack := 0.0
					if a.Offset != b.Offset {
						slack = 1e-12
					}
					if ulps(back, x) > 2 && math.Abs(back-x) > slack {
						t.Errorf("%v %s are %v %s and these %v", x, a.Name, there, b.Name, back)
					}
				}
			}
		}
		if !base {
			t.Errorf("%s lacks its base unit %s", q.Name, q.Base)
		}
	}
	if c, err := expr.NewConversion("kJ", "J"); err != nil || c.Convert(1e305) != 1e305*1000 || !math.IsInf(c.Convert(1e306), 1) {
		t.Errorf("got %v", err)
	}
	if c, err := expr.NewConversion("K", "degC"); err != nil || c.Convert(1e308) != 1e308 {
		t.Errorf("got %v", err)
	}
	if _, err := expr.NewConversion("K", "bar"); err == nil {
		t.Error("kelvins convert to bars")
	}
}
