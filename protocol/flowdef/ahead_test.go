package flowdef_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

const aheadFlow = `flow: f
trigger: %s
steps:
  - {id: rows, read: x, schema: {ts: timestamp, k: string, v: float}}
  - {id: other, read: y, schema: {at: timestamp, k: string, w: float}}
  - id: it
    from: rows
    %s
  - write: z
  - {from: other, insight: rest}
`

func TestTimeBounds(t *testing.T) {
	t.Parallel()
	steps := map[string][]flowdef.TimeBound{
		"aggregate: {n: count()}\n    window: {tumbling: 1m, time: ts%s}": {{}},
		"detect: v\n    time: ts\n    deadband: {change: 1}%s":            {{}},
		"distinct: [k]\n    within: 1m\n    time: ts%s":                   {{}},
		"validate: {k: {unique: {within: 1m, time: ts%s}}}":               {{}},
		"join: other\n    on: [k]\n    within: 1m\n    time: {ts: at}%s":  {{}, {Input: 1}},
		"validate: {k: {required: true}}":                                 nil,
		"join: other\n    on: [k]\n    type: left":                        nil,
	}
	for step, where := range steps {
		for text, want := range map[string]flowdef.TimeBound{
			"":            {Ahead: flowdef.DefaultAhead, Default: true},
			"ahead: 10m":  {Ahead: 10 * time.Minute},
			"ahead: none": {},
			"manual":      {},
			"manual, 2d":  {Ahead: 48 * time.Hour},
		} {
			trigger := "continuous"
			if rest, manual := strings.CutPrefix(text, "manual"); manual {
				trigger, text = "manual", strings.Replace(rest, ", ", "ahead: ", 1)
			}
			written := step
			if strings.Contains(step, "%s") {
				sep := ", "
				if strings.HasSuffix(step, "%s") {
					sep = "\n    "
				}
				if text == "" {
					sep = ""
				}
				written = fmt.Sprintf(step, sep+text)
			}
			plan, err := flowdef.CheckText(fmt.Appendf(nil, aheadFlow, trigger, written), flowdef.Environment{})
			if err != nil {
				t.Errorf("%s: %v", written, err)
				continue
			}
			var bounds []flowdef.TimeBound
			if want.Ahead > 0 {
				for _, b := range where {
					bounds = append(bounds, flowdef.TimeBound{Input: b.Input, Ahead: want.Ahead, Default: want.Default})
				}
			}
			if diff := cmp.Diff(bounds, plan.TimeBounds(2)); diff != "" {
				t.Errorf("%s, %s:\n%s", trigger, written, diff)
			}
		}
	}
	for step, want := range map[string]string{
		"aggregate: {n: count()}\n    window: {tumbling: 1m, time: ts, ahead: 0s}": "ahead",
		"distinct: [k]\n    ahead: 5m":                                             "ahead belongs to within and time",
		"join: other\n    on: [k]\n    ahead: 5m":                                  "ahead belongs to a join of two streams",
	} {
		_, err := flowdef.CheckText(fmt.Appendf(nil, aheadFlow, "manual", step), flowdef.Environment{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v", step, err)
		}
	}
}
