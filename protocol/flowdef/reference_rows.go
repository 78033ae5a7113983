package flowdef

// rowsReference is the verbs that choose, order and hold rows against rules.
func rowsReference() []Entry {
	const within = "how long a kept row makes others its repeats, such as `8h`; a continuous flow needs it"
	return []Entry{
		{
			Name:     string(Union),
			Help:     "Puts the rows of two or more steps together: `[step, step]`. All have the same columns, by name and type, in any order; the output has the order of the first. Rows pass as they come: in a run that ends one read after the other, in the order in which the reads are written. Where several inputs come from one step, the rows that each of its rows gives stay together, in the order of the inputs.",
			Examples: []string{"union"},
		},
		{
			Name:     string(Sort),
			Help:     "Orders the rows of a run that ends: `[column, {column: desc}]`, the most important column first. Nulls are last in both orders, NaN is greater than everything else, texts are ordered by their bytes, false comes before true, and rows that are equal stay as they came. A continuous flow refuses it. A sort with nothing but limits without `by` behind it remembers only as many rows as they let pass.",
			Examples: []string{"sort"},
		},
		{
			Name:     string(Limit),
			Help:     "Keeps the first rows, or the first rows of each group. A run of a manual or scheduled flow counts from nothing: the next run lets so many rows pass again, also with the same data directory. In a continuous flow the counts go on over restarts; groups beyond the first 1,048,576 are failed records there.",
			Keys:     []Key{{"by", "the columns whose values make a group"}},
			Examples: []string{"limit"},
		},
		{
			Name: string(Distinct),
			Help: "Keeps the first row of each combination of `[column, …]`, or of `all` columns; nulls are equal. A run of a manual or scheduled flow remembers what it has seen itself and nothing of the runs before, also with the same data directory. With `within` and `time`, kept rows of one combination are never nearer to each other than that, in event time. In a continuous flow a row that is older than the newest by `within` or more is counted as late and dropped, and what is older than twice `within` is forgotten; it remembers over restarts.",
			Keys: []Key{
				{"within", within},
				{"time", "the timestamp column that `within` is measured in; a row without a time is failed"},
				aheadHelp(),
			},
			Examples: []string{"distinct"},
		},
		{
			Name: string(Unnest),
			Help: "Makes a row of each element of the array in a json column, which is dropped from the output; the new columns come behind the others. An element that is not an object gives its value to the only column of the schema. A value that is no array, or an element that does not fit the schema, is a failed record; the array's other elements go on.",
			Keys: []Key{
				{"schema", "`{member: type}`: the members to take of each element; a missing one is null"},
				{"index", "a name for a column with the element's place, counted from 0"},
				{"type", "`inner` (the default), or `left`, which keeps a row with nulls for an empty array or a null"},
			},
			Examples: []string{"unnest"},
		},
		{
			Name: string(Validate),
			Help: "Holds rows against rules, each beside its column: `{column: {rule: …}}`. A row that breaks one is a failed record, whose reason names column, rule and value, and does not go on; with `on_error: stop` it ends the run. A null breaks no rule but `required`. Rules are tried column by column in the order written, and within a column in the order below; those of `unique` come after all others, so a row that breaks another rule does not count for them.",
			Keys: []Key{
				{"required", "`true`: null is not allowed"},
				{"type", "`int`, `float`, `bool` or `timestamp`: what the text must read as"},
				{"min", "the smallest value allowed: a number, or a time such as `\"2026-01-01\"`"},
				{"max", "the greatest value allowed, which is not less than `min`"},
				{"in", "a list of the values allowed"},
				{"pattern", "a regular expression (RE2) that is found in the text; `^` and `$` tie it to the ends"},
				{"min_length", "the fewest characters of the text"},
				{"max_length", "the most characters of the text, not fewer than `min_length`"},
				{"unique", "`true`: no value comes twice in a run, and the next run of a manual or scheduled flow knows nothing of it; `{with: [column], within: 1h, time: ts}`: not together with the same values of other columns, not within that time of another; a continuous flow needs `within` and `time`, and may say `ahead`"},
				{"rule", "an expression over the row that must not be false, or several by name: `{name: expression}`"},
			},
			Examples: []string{"validate"},
		},
	}
}
