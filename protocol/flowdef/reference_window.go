package flowdef

// windowsReference lists the kinds of windows.
func windowsReference() []Entry {
	at := Key{Name: "time", Help: "the timestamp column"}
	late := Key{Name: "late", Help: "how long after the greatest time seen a record still counts; 0 when left out"}
	ahead := aheadHelp()
	return []Entry{
		{
			Name: "tumbling",
			Help: "Windows of one length that follow one another. They are aligned to 1970-01-01T00:00:00Z or, with a time zone, to local midnight. " +
				"In a time zone the length divides a day (15m, 1h, 8h) or is whole days, and whole weeks begin on Monday. " +
				"Windows of up to an hour are counted in time that passes, so that the hour that comes twice has its windows twice and a day has 23 or 25 hours; " +
				"longer ones go by the clock on the wall, so that the one with the clock change is shorter or longer.",
			Keys:     []Key{{Name: "tumbling", Help: "the length"}, {Name: "timezone", Help: "a name such as Europe/Berlin"}, at, late, ahead},
			Examples: []string{"window-tumbling", "along-time"},
		},
		{
			Name: "hopping",
			Help: "Windows of one length of which one begins every so often, so that a record is in several. The length is a multiple of `every`, at most 1,000 times as long. " +
				"With a time zone the rule of tumbling windows holds for `every`. A record that is late for the oldest of its windows is counted as late and still counts in those that are open.",
			Keys: []Key{
				{Name: "hopping", Help: "the length"},
				{Name: "every", Help: "how often a window begins"},
				{Name: "timezone", Help: "a name such as Europe/Berlin"},
				at, late, ahead,
			},
			Examples: []string{"window-hopping"},
		},
		{
			Name: "session",
			Help: "Windows of rows that follow one another closely, for every group on its own: from the first row to the gap after the last. A row a whole gap or more after the one before begins a new session. " +
				"A row that comes out of order and lies between two open sessions makes them one. With `max` sessions are also cut at all multiples of it since 1970-01-01T00:00:00Z or, with a time zone, since midnight, so that none is longer. " +
				"A record is late when its own gap has passed and no session that is open takes it.",
			Keys: []Key{
				{Name: "session", Help: "the gap: the time without a row that ends a session"},
				{Name: "max", Help: "where sessions are cut, as a length that is not shorter than `session`"},
				{Name: "timezone", Help: "the time zone of max"},
				at, late, ahead,
			},
			Examples: []string{"window-session"},
		},
		{
			Name: "shift",
			Help: "The shifts of a plant's calendar. Beside `window_start` and `window_end` they add the column `shift`, the shift's name. A shift that does not end later than it starts ends on the next day; `days` are the local days on which it starts, every day when left out. " +
				"Times are those of the clock on the wall, so that a night shift has 7 or 9 hours when the clock changes. No two shifts overlap. Rows outside of every shift are counted as such and are in no window.",
			Keys: []Key{
				{Name: "shift", Help: "`{name: \"06:00-14:00\"}`, `{name: {time: \"06:00-14:00\", days: mon-fri}}`, or a list of these under one name; at most 100 in all"},
				{Name: "timezone", Help: "the plant's time zone; it must be there"},
				at, late, ahead,
			},
			Examples: []string{"window-shift", "oee"},
		},
	}
}
