package flowdef

func joinReference() []Entry {
	on := Key{Name: "on", Help: "`[column]`, or `{left: right}` where the names differ: the columns that must be equal. A null equals nothing."}
	example := []string{"join-kinds"}
	return []Entry{
		{
			Name: "join",
			Help: "Puts the rows of the step before, or of `from`, together with those of another step, which must end by itself " +
				"(files, a table). For each left row come its matches, in the order of the right side. " +
				"In a continuous flow the right side is read again every `refresh` of its read step.\n\n" +
				"In a run that ends, both sides can be of any size: what does not fit in `memory_limit` is spilled to disk, and that " +
				"changes nothing in the result, not even its order. In a flow that never ends the right side must fit.",
			Keys: []Key{
				on,
				{Name: "type", Help: "which rows come out: `inner` (the default), `left`, `semi`, `anti` or `full`, see below"},
			},
			Examples: example,
		},
		{Name: "join, type: inner", Help: "A row for every match: the columns of both sides, without the right side's key."},
		{Name: "join, type: left", Help: "As `inner`, and each left row without a match comes once, with null in the right side's columns."},
		{Name: "join, type: semi", Help: "The left rows that have a match, each once and without further columns."},
		{Name: "join, type: anti", Help: "The left rows that have no match, without further columns."},
		{
			Name: "join, type: full",
			Help: "As `left`, and when the left side has ended the right rows without a match come, in their order: their key stands in " +
				"the left side's key columns, and the other left columns are null. Only where the left side ends by itself.",
		},
	}
}
