package flowdef

// lookupReference documents lookup, write and the join of two streams.
func lookupReference() []Entry {
	return []Entry{
		{
			Name: "lookup",
			Help: "Adds the columns of a plant system's rows, found by key, to the rows of the step before. All keys of a batch that are not remembered are asked for in one question. What is found, and that nothing is found, is remembered by key: at most so many keys, those wanted last, each for so long.\n\n" +
				"A row whose key is null, or not found, gets nulls (`left`) or is left out (`inner`). A key for which the system has more than one row is not clear: each row with that key is a failed record, because to add one of the rows would be a guess and to add all would count the row twice. Compare more columns in `on`, make the key unique, or use a `join`, which gives all matches.\n\n" +
				"When the system does not answer, the flow waits and asks again, and the step's source is reported as failing; nothing is lost meanwhile. An error that will not pass, such as a table that is not there, ends the run. The same input gives the same insights as far as the system's rows do not change. A flow test gives the rows under the step's id, with the system's names of the key columns.",
			Keys: []Key{
				{"lookup", "the connection"},
				{"with", "the connector's lookup options"},
				{"on", "`[column]` or `{column: column_of_the_system}`: what must be equal"},
				{"schema", "`{column: type}`: the columns to add"},
				{"type", "`left` (the default) or `inner`"},
				{"cache", "`{size: 10000, age: 10m}`: how many keys are remembered, at most 1,000,000, and for how long"},
			},
			Examples: []string{"lookup"},
		},
		{
			Name: "write",
			Help: "Writes every row into a system of the plant, with all its columns, and passes it on to the next step. A flow may end in a write alone.\n\n" +
				"A row arrives at least once: what was written since the flow's last commit is written again after a crash. PostgreSQL with `mode: upsert` has the effect of exactly once. A row that the system refuses for what it holds is a failed record and goes on to the next step all the same; a system that does not answer makes the flow wait.\n\n" +
				"**The plant decides.** An agent refuses a flow with a write step unless its own configuration says `writes: allow` (`OUTFEED_AGENT_WRITES=allow`); the control plane cannot change that and shows the refusal. `flow run` wants `--allow-writes`. What is written stays in the plant, so it is not in the egress manifest; `flow check` lists it. A flow test writes nowhere: the rows are compared under the step's id in `expect`.",
			Keys: []Key{
				{"write", "the connection"},
				{"with", "the connector's write options"},
			},
			Examples: []string{"write"},
		},
		{
			Name: "join within a time",
			Help: "With `within`, both sides of a join are streams: rows match that have the same key and whose times are at most that far apart, before or after. A pair goes out when its second row has come; the pairs of one row are in the order in which their other rows came. With `type: left` a row of the left side that has found nothing goes out with nulls once it is certain that nothing will match it.\n\n" +
				"Each side has a watermark: the greatest time seen on it, less `late`. A row that is older than its own side's watermark is counted as late and left out. A row is forgotten when the other side's watermark is more than `within` past its time. So a side that says nothing keeps the other side's rows waiting: the join holds at most 1,000,000 rows of both sides (and 256 MiB of text), then it lets the oldest quarter of the fuller side go and counts those rows as failed. A row whose time is null is a failed record; one whose key is null matches nothing.\n\n" +
				"In a run that ends nothing is late and every pair is found, in whatever order the rows come: the SQL join on the key and on the times; rows without a match come at the end, by time. More rows than the join can hold end such a run with an error.",
			Keys: []Key{
				{"within", "how far apart the times of two rows may be"},
				{"time", "`{left_time: right_time}`, or `[column]` when both have the same name"},
				{"late", "how long after the greatest time seen on its side a row still counts; 0 when left out"},
				aheadHelp(),
				{"type", "`inner` (the default) or `left`"},
			},
			Examples: []string{"join-within"},
		},
	}
}
