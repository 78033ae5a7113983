package flowdef

import (
	"strings"
	"testing"
)

func TestACronHasADay(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0 0 30 2 *":        "there is no such day within eight years",
		"0 0 31 4,6,9,11 *": "there is no such day within eight years",
		"0 0 30,31 2 *":     "there is no such day within eight years",
		"0 0 29 2 */6":      "there is no such day within eight years", // only when it is a Sunday or a Saturday
		"0 0 29 2 *":        "",
		"0 0 31 * *":        "",
		"0 0 30 2 1":        "", // a Monday will do
		"0 0 31 4-5 *":      "",
		"*/5 6-18 */2 2 7":  "",
		"0 6 * * 1-5":       "",
		"0 0 0 * *":         `"0" is no day of the month`,
		"0 0 * * 8":         `"8" is no day of the week`,
		"0/5 0 * * *":       `"0/5" is no minute`,
		"*/0 0 * * *":       `"*/0" is no minute`,
		"5-3 0 * * *":       `"5-3" is no minute`,
		"1,,2 0 * * *":      `"" is no minute`,
		"+1 0 * * *":        `"+1" is no minute`,
	} {
		err := checkCron(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
