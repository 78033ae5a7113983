package engine

import (
	"math"
	"testing"
)

func TestJSONIntTakesWholeNumbers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"1e18": 1e18, "922337203685477580.7e1": math.MaxInt64, "-9.223372036854775808e18": math.MinInt64,
		"10e-1": 1, "1E+2": 100, "0e-400": 0, "0.0e99999999999999999999": 0, "0.00000000000000000000000000001e29": 1,
	} {
		if got, ok := jsonInt([]byte(text)); !ok || got != want {
			t.Errorf("json_int of %s is %d, %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"1e-400", "1e-99999999999999999999", "1.5", "15e-1", "1e19", "1e400", "1e99999999999999999999", "9223372036854775808", `"1"`} {
		if got, ok := jsonInt([]byte(text)); ok {
			t.Errorf("json_int of %s is %d, want null", text, got)
		}
	}
}
