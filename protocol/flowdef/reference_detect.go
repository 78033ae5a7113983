package flowdef

// detectReference describes the verb; detectMethodsReference its methods, each with what is written in it.
func detectReference() []Entry {
	return []Entry{{
		Name: string(Detect),
		Help: "Watches a number, or the silence of a source, and gives an event for every stretch that is not as it should be, with its start, end and severity; or passes on only the rows in which the number has changed. An event has the columns of `by`, `event_start`, `event_end` (null while it lasts), `event_state` (`open` or `closed`), `severity` and numbers that depend on the method. [Detection](detect.md) tells more.",
		Keys: []Key{
			{"threshold", "an event when the value is beyond a bound for long enough: `{above: 90, clear: 85, for: 30s}`"},
			{"rate", "when it changes too fast: `{above: 5, per: 1m}`"},
			{"deadband", "no event, but the rows that differ from the last one passed: `{change: 0.5, percent: 1, every: 10m}`"},
			{"zscore", "when it is far from the mean of its own past: `{above: 4, over: 24h}`"},
			{"ewma", "when its smoothed course is: `{above: 3, half_life: 1h, over: 7d}`"},
			{"cusum", "when a small shift lasts: `{shift: 1, limit: 8, over: 7d}`"},
			{"silence", "when nothing comes any more: `{for: 5m}`; nothing need stand behind `detect:`"},
			{"time", "the timestamp column; a row whose time is not after the last one of its group is late"},
			aheadHelp(),
			{"by", "the columns that say what is watched"},
			{"severity", "the severity of the events, `warning` when left out; or severities in the bound, as in `above: {warning: 80, critical: 95}`"},
			{"report", "`both` (the default): a row when an event opens and one when it closes; `open` or `closed`: only one of them"},
		},
		Examples: []string{"detect-threshold"},
	}}
}

func detectMethodsReference() []Entry {
	return append([]Entry{
		{
			Name: string(DetectThreshold),
			Help: "An event begins when the value has been beyond the bound for `for`, and ends when it has been back at `clear` for `clear_for`.",
			Keys: []Key{
				{"above", "the bound: a number, or up to eight severities as in `{warning: 80, critical: 95}`"},
				{"below", "the bound on the other side, instead of above"},
				{"clear", "where the event ends; the bound when left out"},
				{"for", "how long the value must be beyond the bound; no time when left out"},
				{"clear_for", "how long it must be back; no time when left out"},
			},
			Examples: []string{"detect-threshold"},
		},
		{
			Name: string(DetectRate),
			Help: "An event begins when the value changes faster than the bound. The score is the change since the reading before, for each `per` of time.",
			Keys: []Key{
				{"above", "the bound: a number, or severities"},
				{"per", "the unit of time, such as `1m`"},
				{"direction", "`up`, `down` or `both` (the default)"},
				{"half_life", "smooths the rate: after this time a change counts half. Give it where the readings are noisy or close together"},
				{"clear", "as with threshold"},
				{"for", "as with threshold"},
				{"clear_for", "as with threshold"},
			},
			Examples: []string{"detect-rate"},
		},
		{
			Name: string(DetectDeadband),
			Help: "Report by exception: passes on the rows whose value differs from that of the last row passed by more than the tolerance, with all their columns. The first row of each group passes.",
			Keys: []Key{
				{"change", "the tolerance, in the value's unit"},
				{"percent", "the tolerance, of the last value passed; of the two the larger one counts"},
				{"every", "a row also passes when the last one passed is this old"},
			},
			Examples: []string{"detect-deadband"},
		},
	}, detectBaselineReference()...)
}

// detectBaselineReference describes the methods that come behind the others: those with a baseline, and silence.
func detectBaselineReference() []Entry {
	learned := []Key{
		{"over", "how far the baseline reaches back, at most `3650d`"},
		{"min", "how many values it must have before anything is said, a whole number from 2 to 1,000,000; 30 when left out"},
		{"floor", "the least standard deviation; without it a baseline that is constant scores nothing"},
		{"relearn", "how long an event may last before its values become the new normal; `over` when left out"},
	}
	with := func(own ...Key) []Key { return append(own, learned...) }
	return []Entry{
		{
			Name: string(DetectZScore),
			Help: "An event begins when the value is further from the mean of its rolling baseline than the bound, in standard deviations.",
			Keys: with(
				Key{"above", "the bound in standard deviations: a number, or severities"},
				Key{"direction", "as with rate"},
				Key{"clear", "as with rate"},
				Key{"for", "as with rate"},
				Key{"clear_for", "as with rate"}),
			Examples: []string{"detect-zscore"},
		},
		{
			Name: string(DetectEWMA),
			Help: "Like zscore, for the exponentially smoothed course of the value, held against the past of that course. It finds what lasts and passes over single readings.",
			Keys: with(
				Key{"above", "the bound in standard deviations of the smoothed course: a number, or severities"},
				Key{"half_life", "after this time a reading counts half; readings need not be regular"},
				Key{"direction", "as with rate"},
				Key{"clear", "as with rate"},
				Key{"for", "as with rate"},
				Key{"clear_for", "as with rate"}),
			Examples: []string{"detect-ewma", "machine-temperature"},
		},
		{
			Name: string(DetectCUSUM),
			Help: "Sums up how far the values are from their baseline, in standard deviations and less half of `shift`, for each direction; a sum never falls below zero. An event begins when a sum passes `limit`, and its start is where that sum left zero. It finds small shifts that last.",
			Keys: with(
				Key{"shift", "the shift to find, in standard deviations"},
				Key{"limit", "the bound of the sum: a number, or severities. A sum stops at twice the last one"},
				Key{"clear", "where the event ends; half the limit when left out"},
				Key{"direction", "`up`, `down` or `both` (the default)"},
				Key{"target", "a given mean, instead of that of the baseline"},
				Key{"deviation", "the standard deviation that belongs to it"}),
			Examples: []string{"detect-cusum"},
		},
		{
			Name:     string(DetectSilence),
			Help:     "An event begins when a group has had no reading for longer than `for`, by the greatest time seen of any group or, while no row comes at all in a continuous flow, by the clock. It ends with the next reading.",
			Keys:     []Key{{"for", "how long nothing must come"}},
			Examples: []string{"detect-silence"},
		},
	}
}
