package expr

// timePartFunctions take the parts of a time off a calendar and a clock, in UTC or in a zone.
func timePartFunctions() []Function {
	part := func(name, help, result string) Function {
		return Function{
			Name: name, Signatures: []Signature{sig(Int, Timestamp), withConstants(1, Int, Timestamp, String)}, Help: help,
			Example: name + `(timestamp("2026-03-09T23:05:06.5Z"), "Europe/Berlin")`, Result: result,
			check: zoneAt(1),
		}
	}
	return []Function{
		part("year", "The year in UTC or, as with all parts of a time, in the constant IANA time zone; there they are null where the zone shows no year from 1 to 9999.", `2026`),
		part("quarter", "The quarter of the year, 1 to 4.", `1`),
		part("month", "The month, 1 to 12.", `3`),
		part("day", "The day of the month, 1 to 31.", `10`),
		part("hour", "The hour, 0 to 23.", `0`),
		part("minute", "The minute, 0 to 59.", `5`),
		part("second", "The second, 0 to 59, without its decimals.", `6`),
		part("weekday", "The day of the week: 1 is Monday and 7 is Sunday.", `2`),
		part("day_of_year", "The day of the year, 1 to 366.", `69`),
		part("week", "The week of ISO 8601, 1 to 53; the first one holds 4 January.", `11`),
		part("week_year", "The year that the week of ISO 8601 belongs to.", `2026`),
	}
}

func timeFunctions() []Function {
	epoch := func(name, help, result string) Function {
		return Function{
			Name: name, Signatures: []Signature{sig(Int, Timestamp)}, Help: help,
			Example: name + `(timestamp("1970-01-01T00:00:01.5Z"))`, Result: result,
		}
	}
	return []Function{
		{
			Name:       "truncate",
			Signatures: []Signature{withConstants(1, Timestamp, Timestamp, String), withConstants(1, Timestamp, Timestamp, String, String)},
			Help:       "The start of the stretch of time that holds the instant, in UTC or in the zone. The constant length is a number and one of s, m and h that divides a day, 1d, 1w (from Monday), or a number of months (mo) that divides a year, or 1y.",
			Example:    `truncate(timestamp("2026-07-09T23:05:06Z"), "1d", "Europe/Berlin")`, Result: `timestamp("2026-07-09T22:00:00Z")`,
			check: both(constantAt(1, "truncate", checkTimeUnit), zoneAt(2)),
		},
		{
			Name:       "add_time",
			Signatures: []Signature{withConstants(1, Timestamp, Timestamp, String), withConstants(2, Timestamp, Timestamp, Int, String)},
			Help:       "The instant so much later: a constant duration such as 1h30m or -5s or, with three arguments, so many of the constant unit d, h, m, s, ms or us. A day has 24 hours. Outside the years 1 to 9999 it is null.",
			Example:    `add_time(timestamp("2026-03-09T14:00:00Z"), "-1h30m")`, Result: `timestamp("2026-03-09T12:30:00Z")`,
			check: checkAddTime,
		},
		{
			Name:       "time_between",
			Signatures: []Signature{withConstants(2, Float, Timestamp, Timestamp, String)},
			Help:       "How long it is from the first instant to the second, in the constant unit d, h, m, s, ms or us; negative when the second is earlier.",
			Example:    `time_between(timestamp("2026-03-09T14:00:00Z"), timestamp("2026-03-09T15:30:00Z"), "h")`, Result: `1.5`,
			check: constantAt(2, "time_between", checkClockUnit),
		},
		{
			Name:       "format_time",
			Signatures: []Signature{withConstants(1, String, Timestamp, String), withConstants(1, String, Timestamp, String, String)},
			Help:       "The instant as text in UTC or in the zone, by a constant layout whose parts are in the table of layouts. Null outside the years 1 to 9999.",
			Example:    `format_time(timestamp("2026-03-09T14:05:06Z"), "%d.%m.%Y %H:%M", "Europe/Berlin")`, Result: `"09.03.2026 15:05"`,
			check: both(constantAt(1, "format_time", checkLayout), zoneAt(2)),
		},
		{
			Name:       "parse_time",
			Signatures: []Signature{withConstants(1, Timestamp, String, String), withConstants(1, Timestamp, String, String, String)},
			Help:       "The instant that a text says by a constant layout, in UTC or in the zone where the layout has no %z. A text of another form is null.",
			Example:    `parse_time("09.03.2026 15:05", "%d.%m.%Y %H:%M", "Europe/Berlin")`, Result: `timestamp("2026-03-09T14:05:00Z")`,
			check: both(constantAt(1, "parse_time", checkParseLayout), zoneAt(2)),
		},
		epoch("epoch_s", "Whole seconds since 1970-01-01T00:00:00Z, rounded down.", `1`),
		epoch("epoch_ms", "Whole milliseconds since 1970-01-01T00:00:00Z, rounded down.", `1500`),
		epoch("epoch_us", "Microseconds since 1970-01-01T00:00:00Z.", `1500000`),
	}
}
