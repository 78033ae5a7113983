package flowdef

// definitionReference is what a definition consists of outside of its verbs and windows. The first entry is the table of
// the documentation's first section.
func definitionReference() []Entry {
	return []Entry{
		{Name: "a flow", Help: "A definition: a text in YAML or JSON.", Keys: []Key{
			{"flow", "the name: letters a to z, digits, `_`, `-` and `.`"},
			{"description", "a text for people"},
			{"trigger", "`continuous`, `manual` (the default), `{every: 15m}`, or `{cron: \"0 6 * * 1-5\", timezone: Europe/Berlin, missed: once}`; the time zone is UTC and missed is `skip` when left out. A cron without a day in every eight years, such as 30 February, is refused"},
			{"on_error", "`skip` (the default) counts and samples a failing record; `stop` ends the run and keeps what came before, as below"},
			{"steps", "a list of steps"},
			{"tests", "rows given to the read and lookup steps, and the insights, or the rows of a write step, expected: `{name: …, given: {step: [rows]}, expect: {insight: [insights]}, failed: 0, ordered: true}`. A row, and an expected insight, is written column by column; in an expected insight `time` is the insight's time in RFC 3339, unless a column has that name. Of an insight only the columns that stand there are compared; floats are the same up to a billionth (1e-9) of the greater one, and 3.0 is the int 3. A float that is not a number or infinite is written as insights write it, as the text `\"NaN\"`, `\"Infinity\"` or `\"-Infinity\"`, in `given` and in `expect`. `failed` is how many records must fail; without it a test passes however many do, and `flow test` says how many and why. The number of a name's insights must be that of `expect`; their order matters only with `ordered: true`. No two tests have the same name"},
		}},
		{Name: "a step", Help: "A step has one verb and what stands beside it.", Keys: []Key{
			{"id", "the step's name in its flow, `<verb>_<place>` when left out"},
			{"from", "the id of the step whose rows it takes; the step before when left out"},
		}},
		{Name: "a trigger", Help: "When a flow runs.", Keys: []Key{
			{"every", "how often the flow runs, such as `15m`: at once when it is deployed and whenever the agent starts, and then a whole number of these after that. It has no `missed`"},
			{"cron", "when the flow runs, in the five fields of cron: minute, hour, day of the month, month, day of the week. A time that the change to summer time leaves out is left out, and one that the change back shows twice counts once, unless the hour is `*`"},
			{"timezone", "the time zone of `cron`, UTC when left out"},
			{"missed", "what becomes of the runs of a `cron` that were due while the flow did not run: `skip` (the default) leaves them out, `once` runs the flow once when it runs again, however many they were"},
		}},
		{Name: "a test", Help: "Rows that are given and what must come of them.", Keys: []Key{
			{"name", "what the test is called; no two of a flow have the same name"},
			{"given", "`{step: [rows]}`: the rows of read and lookup steps"},
			{"expect", "`{insight: [insights]}`: the insights, or the rows of a write step, that must come, no more and no fewer"},
			{"failed", "how many records must fail; any number when left out"},
			{"ordered", "`true` where the order must be that of `expect`"},
		}},
	}
}
