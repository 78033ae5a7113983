package expr

import "sync"

// Aggregates lists the aggregate functions in the order of the documentation. The slice is the caller's.
//
// Every aggregate skips the rows whose argument is null. Where nothing is left, count and count_distinct give 0 and the
// others null.
func Aggregates() []Function {
	orderable := func() []Signature {
		list := sameType(Int, Float, String, Timestamp)
		for i := range list {
			list[i].Variadic = false
		}
		return list
	}
	return append([]Function{
		{
			Name:       "count",
			Signatures: append([]Signature{sig(Int)}, fromEach(Int, Bool, Int, Float, String, Timestamp, JSON)...),
			Help:       "The number of rows or, with an argument, of rows in which it is not null: false counts as well. To count where a condition holds, write `sum(state == \"DOWN\" ? 1 : 0)`.",
			Example:    `count()`,
		},
		{
			Name: "sum", Signatures: []Signature{sig(Int, Int), sig(Float, Float)},
			Help:    "The sum; an int sum that does not fit in 64 bits is null.",
			Example: `sum(scrap)`,
		},
		{
			Name: "avg", Signatures: []Signature{sig(Float, Float)},
			Help:    "The arithmetic mean.",
			Example: `avg(temp)`,
		},
		{
			Name: "min", Signatures: orderable(),
			Help:    "The smallest value.",
			Example: `min(temp)`,
		},
		{
			Name: "max", Signatures: orderable(),
			Help:    "The greatest value.",
			Example: `max(vibration)`,
		},
		{
			Name: "first", Signatures: orderable(),
			Help:    "The earliest value by the window's time column, or by arrival where there is no window; of equal times the one that came first.",
			Example: `first(state)`,
		},
		{
			Name: "last", Signatures: orderable(),
			Help:    "The latest value by the window's time column, or by arrival where there is no window; of equal times the one that came last.",
			Example: `last(state)`,
		},
		{
			Name: "stddev", Signatures: []Signature{sig(Float, Float)},
			Help:    "The sample standard deviation (n - 1); null for fewer than two values.",
			Example: `stddev(temp)`,
		},
		{
			Name: "median", Signatures: []Signature{sig(Float, Float)},
			Help:    "The exact median: the middle value or, of an even number of values, halfway between the two in the middle.",
			Example: `median(temp)`,
		},
		{
			Name: "quantile", Signatures: []Signature{{Args: []Type{Float, Float}, Literal: []bool{false, true}, Result: Float}},
			Help:    "The exact quantile, between two values in proportion, as PostgreSQL's percentile_cont: the constant fraction goes from 0 (the smallest) to 1 (the greatest).",
			Example: `quantile(temp, 0.95)`,
		},
		{
			Name: "count_distinct", Signatures: fromEach(Int, Bool, Int, Float, String, Timestamp),
			Help:    "The exact number of different values.",
			Example: `count_distinct(state)`,
		},
	}, timedAggregates()...)
}

// timedAggregates are those that follow the readings of a group along a window's time column.
func timedAggregates() []Function {
	return []Function{
		{
			Name: "increase", Signatures: []Signature{sig(Int, Int), sig(Float, Float)}, Windowed: true,
			Help:    "How much a counter went up, from its last value before the window on. A value lower than the one before is a counter that began again at 0. An int that does not fit in 64 bits is null.",
			Example: `increase(count)`,
		},
		{
			Name: "rate", Signatures: []Signature{sig(Float, Float)}, Windowed: true,
			Help:    "The increase of a counter per second: `increase` divided by the known part of the window.",
			Example: `rate(count)`,
		},
		{
			Name: "time_weighted_avg", Signatures: []Signature{sig(Float, Float)}, Windowed: true,
			Help:    "The mean over the known part of the window, in which each value holds until the next one.",
			Example: `time_weighted_avg(temp)`,
		},
		{
			Name: "duration_where", Signatures: []Signature{sig(Float, Bool)}, Windowed: true,
			Help:    "For how many seconds of the window the condition held, each row's answer holding until the next row.",
			Example: `duration_where(state == "RUN")`,
		},
	}
}

// FindAggregate gives the aggregate of that name; ok is false when there is none. What it points to must not be changed.
func FindAggregate(name string) (f *Function, ok bool) {
	f, ok = aggregateIndex()[name]
	return f, ok
}

var aggregateIndex = sync.OnceValue(func() map[string]*Function { return indexByName(Aggregates()) })
