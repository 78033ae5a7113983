package flowdef_test

import (
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func TestHints(t *testing.T) {
	t.Parallel()
	const head = "flow: f\nsteps:\n- {id: r, read: a, schema: {n: int, x: string}}\n"
	for step, want := range map[string]string{
		"- {map: {y: round(n, 2)}}\n- insight: i\n":                                          `the expression ends too early; expected a comma or the ) of round; between { and } YAML takes the comma behind it for the end of the value, so write the expression in quotes`,
		"- map: {y: n +}\n- insight: i\n":                                                    `the expression ends too early; expected a value`,
		"- {filter: \"a\" == x}\n- insight: i\n":                                             `line 4, column 16: the text is neither YAML nor JSON: did not find expected ',' or '}'; a text in quotes ends here`,
		"- insight: i\ntests:\n- {name: t, expect: {i: []}}\n- {name: t, expect: {i: []}}\n": `line 7, column 10: the test "t" is there twice; the first is in line 6`,
	} {
		_, err := flowdef.CheckText([]byte(head+step), flowdef.Environment{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, not %s", step, err, want)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s gives more than one problem: %v", step, err)
		} else if !strings.Contains(want, "between {") && strings.Contains(err.Error(), "between {") {
			t.Errorf("%s gives a hint that is wrong: %v", step, err)
		}
	}
	for word, want := range map[string]string{
		"unique": "`unique` of validate: `true`: no value comes twice", "pattern": "regular expression", "late": "`late` of the window tumbling",
	} {
		if text, err := flowdef.Explain(word); err != nil || !strings.Contains(text, want) {
			t.Errorf("%s is explained as %q, %v", word, text, err)
		}
	}
}
