package flowdef

func coreReference() []Entry {
	return []Entry{
		{
			Name: string(Read),
			Help: "Reads a connection of the workspace. Its columns are those of the schema; a record that does not fit them is failed.",
			Keys: []Key{
				{"schema", "`{column: type}`: the columns to take, of the types `bool int float string timestamp json`"},
				{"with", "the connector's options, such as a topic, a table or a path"},
				{"refresh", "how often a continuous flow reads the right side of a join again; a minute when left out"},
				{"drift", "what becomes of records that differ from the schema: `ignore`, the default, passes over the difference, and refuses a file whose header lacks a column that the flow uses; `report` notes each unknown member or column, and each of the schema that never comes and so is null, once in the run's sample; `fail` fails records with a member that the schema does not name, refuses a file whose header has such a column or lacks one of the schema, and fails a run over files that end when no record of theirs had a member of the schema (where the records do not end, that is noted, for the member may still come). With `report` and `fail` a member of the schema that came before and then is in none of 1,000 records in a row, or of a whole file of at least 100, is noted once; a null counts as having come"},
			},
			Examples: []string{"read"},
		},
		{
			Name:     string(Filter),
			Help:     "Keeps the rows for which the expression is true; not those for which it is false or null.",
			Examples: []string{"filter"},
		},
		{
			Name:     string(Map),
			Help:     "Adds columns or replaces them, in order: a later expression sees the earlier columns.",
			Examples: []string{"map"},
		},
		{
			Name:     string(Select),
			Help:     "Keeps columns, in the order written: `[a, b]`, `{new: old}` to rename, or a list of both.",
			Examples: []string{"select"},
		},
		{
			Name: string(Aggregate),
			Help: "Makes one row of each group: `{name: aggregate(expression)}`. The output is the columns of `by`, the window's bounds, then the aggregates.",
			Keys: []Key{
				{"by", "the grouping columns; without them all rows are one group"},
				{"window", "how time is cut, see [Windows](#windows); a continuous flow needs one"},
			},
			Examples: []string{"aggregate", "aggregates"},
		},
		{
			Name: string(Insight),
			Help: "Every row becomes an insight, and goes on to the next step unless its time is null. The values are all columns but the key and the time; `window_start` and `window_end` stay among them.",
			Keys: []Key{
				{"key", "the columns that say what the insight is about"},
				{"time", "the insight's time, a timestamp column; when left out, the start of the window or event, else the only timestamp column, else the start of the run, or in a flow without end the moment at which it is made"},
			},
			Examples: []string{"insight"},
		},
	}
}
