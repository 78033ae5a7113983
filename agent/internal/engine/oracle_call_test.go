package engine

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/outfeed/outfeed/protocol/expr"
)

func oracleTypes() []expr.Type {
	return []expr.Type{expr.Bool, expr.Bool, expr.Int, expr.Int, expr.Float, expr.String, expr.String, expr.Timestamp, expr.Timestamp, expr.JSON}
}

func edgeTexts() []string {
	return []string{
		"", "RUN", "IDLE", "run", "Öl", "press-07", "aaa", " 42 ", "-9223372036854775808", "1e3", "0x1F", "ffffffffffffffff", "a/b//c", "ß😀é", "e\u0301", "\x00", "true",
		"2026-03-29 02:30:00", "2026-10-25 02:30:00", "2026-10-25", "25.10.2026 02:30", "1.1.2026 0:05", `{"a": 1}`, "[1,\t2]", "\u00a0x\u2003", "$1", "Infinity",
	}
}

func edgeJSON() []string {
	return []string{
		`{"a":[1,2]}`, `{"a":{"b":"x\"y\u00e9\ud83d\ude00"}}`, ` {"a" : null} `, `{"a":{"b":"\ud83d"}}`, `"\ude00\ud83d"`, `[]`, `{}`, `[[1],{"a":2},3]`, `true`, `false`, `null`, `"T7"`, `""`,
		`0`, `-0`, `12`, `-1.50e1`, `1e3`, `1.5`, `9223372036854775807`, `-9223372036854775808`, `9223372036854775808`, `9007199254740993.000`, `1e400`, `0e99`,
		`1000000000000000000000e-3`, `0.00012e4`, `{"a":9007199254740993}`, `{"a":true}`, `{"a":"x"}`,
	}
}

// edgeTimes are around changes of clocks and at the ends of what can be written.
func edgeTimes() []int64 {
	var list []int64
	for _, text := range []string{
		"2026-03-29T01:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-04-04T15:10:00Z",
		"2011-12-30T10:00:00Z", "2018-11-04T03:30:00Z", "2018-02-18T02:30:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z",
		"2024-12-30T12:00:00Z", "2021-01-03T23:59:59Z", "2024-02-29T12:00:00Z",
	} {
		micros, _ := expr.ParseTimestamp(text, time.UTC)
		list = append(list, micros, micros-1)
	}
	return append(list, math.MinInt64, math.MaxInt64, minTime-1, maxTime+1)
}

func templates() (leaves, inner map[expr.Type][]string) {
	leaves = map[expr.Type][]string{
		expr.Bool: {"b", "c", "true", "false"}, expr.Int: {"i", "j", "0", "1", "3", "-1", "63", "9223372036854775807"},
		expr.Float:  {"f", "g", "0.0", "2.5", "1e300", "float(i)", "-0.5"},
		expr.String: {"s", "t", `"RUN"`, `""`, `"Öl"`, `"/"`}, expr.Timestamp: {"u", "v", `timestamp("2026-01-01")`, `timestamp("2026-10-25 02:30:00", "Europe/Berlin")`},
		expr.JSON: {"k", `json("[1, {\"a\": 2}]")`},
	}
	inner = map[expr.Type][]string{
		expr.Bool: {
			"(#b and #b)", "(#b or #b)", "(not #b)", "(#i == #i)", "(#i != #i)", "(#i < #i)", "(#i <= #i)", "(#f == #f)", "(#f != #f)", "(#f < #f)",
			"(#f <= #f)", "(#f > #f)", "(#f >= #f)", "(#s == #s)", "(#s < #s)", "(#s >= #s)", "(#u == #u)", "(#u > #u)", "(#b == #b)", "(#b != #b)",
			"(#i < #f)", "(#f == #i)", "(#i in [1, 2, 3])", "(#f in [1, 2.5])", `(#s in ["RUN", ""])`, "is_null(#f)", "is_null(#s)", "is_null(#b)", "is_null(#k)",
			`(#s matches "^R.N$")`, "contains(#s, #s)", "starts_with(#s, #s)", "ends_with(#s, #s)", "bool(#s)", "bool(#f)", "bool(#i)",
			"is_nan(#f)", "is_finite(#f)", "bit(#i, #i)", "bit(#i, 3)", "json_bool(#k)", `json_bool(#k, "a")`,
			`(#s == "RUN")`, `("RUN" != #s)`, "(#f > 60)", "(#i >= 1)", "(0.5 < #f)", "(#i != 3)", `(#s < "a")`, `(#u >= "2026-01-01")`, "(#b == true)",
		},
		expr.Int: {
			"(#i + #i)", "(#i - #i)", "(#i * #i)", "(#i % #i)", "(-#i)", "abs(#i)", "length(#s)", "int(#f)", "epoch_ms(#u)", "least(#i, #i, 1)", "int(#s)", "int(#b)",
			"(#i + 1)", "(#i - 1)", "(#i * 3)", "(#i % 7)", "(7 - #i)", "round(#i)", "trunc(#i)", "sign(#i)", "sign(#f)", "clamp(#i, #i, #i)", "clamp(#i, 0, 100)",
			"bit_and(#i, #i)", "bit_or(#i, #i)", "bit_xor(#i, #i)", "bit_not(#i)", "bit_count(#i)", "shift_left(#i, #i)", "shift_right(#i, #i)", "index_of(#s, #s)", "from_hex(#s)",
			"from_hex(hex(#i))", "epoch_s(#u)", "epoch_us(#u)", "json_int(#k)", `json_int(#k, "a")`, `json_int(#k, "a[1]")`, "json_length(#k)", `json_length(#k, "a")`,
			"year(#u)", "hour(#u)", "weekday(#u)", "week(#u)", "week_year(#u)", "quarter(#u)", "day_of_year(#u)", "minute(#u)", "second(#u)",
			`year(#u, "Pacific/Apia")`, `month(#u, "Europe/Berlin")`, `day(#u, "America/Sao_Paulo")`, `hour(#u, "Europe/Berlin")`, `minute(#u, "Australia/Lord_Howe")`,
			`weekday(#u, "Asia/Tokyo")`, `week(#u, "America/New_York")`, `week_year(#u, "UTC")`, `day_of_year(#u, "Pacific/Apia")`, `second(#u, "Europe/Berlin")`,
		},
		expr.Float: {
			"(#f + #f)", "(#f - #f)", "(#f * #f)", "(#f / #f)", "(#f % #f)", "(#i / #i)", "(-#f)", "least(#f, #f, 1)", "(#i * #f)", "abs(#f)", "float(#s)", "float(#b)",
			"(#f + 1)", "(#f - 2.5)", "(#f * 0.1)", "(#f / 3)", "(1 / #f)", "(#f / 0)", "(#f % 2)", "((#i - #i) / #i)", "(#i / 7)", "(2 / #i)",
			"round(#f)", "round(#f, 2)", "floor(#f)", "ceil(#f)", "trunc(#f)", "sqrt(#f)", "pow(#f, #f)", "exp(#f)", "ln(#f)", "log10(#f)", "log(#f, #f)", "log(#f, 2)", "hypot(#f, #f)",
			"sin(#f)", "cos(#f)", "tan(#f)", "asin(#f)", "acos(#f)", "atan(#f)", "atan2(#f, #f)", "degrees(#f)", "radians(#f)", "pi()", "clamp(#f, #f, #f)", "clamp(#f, 0, 1)",
			`time_between(#u, #u, "h")`, `time_between(#u, #u, "us")`, "json_number(#k)", `json_number(#k, "a")`,
		},
		expr.Timestamp: {
			"greatest(#u, #u)", "least(#u, #u)", "timestamp(#s)", `timestamp(#s, "Europe/Berlin")`, "timestamp(#i)", `add_time(#u, "-1h30m")`, `add_time(#u, #i, "ms")`, `add_time(#u, #i, "d")`,
			`truncate(#u, "1m")`, `truncate(#u, "8h")`, `truncate(#u, "1d")`, `truncate(#u, "1w")`, `truncate(#u, "3mo")`, `truncate(#u, "1y")`,
			`truncate(#u, "15m", "Europe/Berlin")`, `truncate(#u, "1h", "Australia/Lord_Howe")`, `truncate(#u, "90m", "Europe/London")`, `truncate(#u, "8h", "Europe/Berlin")`,
			`truncate(#u, "1d", "America/Sao_Paulo")`, `truncate(#u, "1d", "Europe/Berlin")`, `truncate(#u, "1w", "Pacific/Apia")`, `truncate(#u, "1mo", "America/New_York")`, `truncate(#u, "1y", "Asia/Tokyo")`,
			`parse_time(#s, "%d.%m.%Y %H:%M", "Europe/Berlin")`, `parse_time(format_time(#u, "%Y-%m-%d %H:%M:%S.%f%z", "America/New_York"), "%Y-%m-%d %H:%M:%S.%f%z")`,
		},
		expr.String: {
			"(#s + #s)", "upper(#s)", "lower(#s)", "trim(#s)", "concat(#s, #s, #s)", "greatest(#s, #s)", "substring(#s, #i)", "substring(#s, 1, #i)", "replace(#s, #s, #s)",
			"left(#s, #i)", "right(#s, #i)", "pad_left(#s, 6)", "pad_left(#s, 9, #s)", "pad_right(#s, 7, #s)", "pad_right(#s, #i)", "repeat(#s, 3)", "repeat(#s, -1)", "reverse(#s)",
			"split_part(#s, #s, #i)", `split_part(#s, "/", 1)`, `split_part(#s, "a", -1)`, "hex(#i)", "sha256(#s)", "string(#i)", "string(#b)", "string(#k)",
			`regex_extract(#s, "[a-z]+")`, `regex_extract(#s, "(\\d+)(x)?", 2)`, `regex_extract(#s, "(\\d*)$", 1)`, `regex_replace(#s, "\\b([a-z])", "<$1>")`, `regex_replace(#s, "", "${0}-$$")`,
			"json_string(#k)", `json_string(#k, "a.b")`, "json_type(#k)", `json_type(#k, "a")`,
			`format_time(#u, "%Y %y %m %d %j %H %I %p %M %S %L %f")`, `format_time(#u, "%a %A %b %B %u %G %V %s %z %%", "Europe/Berlin")`,
		},
		expr.JSON: {"json(#s)", `json_get(#k, "a")`, `json_get(#k, "a[1]")`, "json_get(#k, \"[1]\")"},
	}
	return leaves, inner
}

// oracleCall computes a function in the plainest way that the standard library offers.
func oracleCall(n *expr.Node, args []any) any {
	switch n.Func.Name {
	case "pi":
		return math.Pi
	case "is_null":
		return args[0] == nil
	case "coalesce":
		for _, a := range args {
			if a != nil {
				return a
			}
		}
		return nil
	}
	for _, a := range args {
		if a == nil {
			return nil
		}
	}
	switch n.Func.Name {
	case "least", "greatest":
		best := args[0]
		for _, a := range args[1:] {
			if order := oracleCompare(a, best); (n.Func.Name == "least") == (order < 0) && order != 0 {
				best = a
			}
		}
		return finiteOrNil(best)
	case "abs":
		if f, ok := args[0].(float64); ok {
			return finiteOrNil(math.Abs(f))
		}
		return fromBig(new(big.Int).Abs(big.NewInt(as[int64](args[0]))))
	case "contains":
		return strings.Contains(as[string](args[0]), as[string](args[1]))
	case "upper":
		return strings.ToUpper(as[string](args[0]))
	case "length":
		return int64(len([]rune(as[string](args[0]))))
	case "concat":
		var joined strings.Builder
		for _, a := range args {
			joined.WriteString(as[string](a))
		}
		return joined.String()
	case "int", "float", "bool", "string", "json":
		return oracleCast(n.Func.Name, args[0])
	}
	for _, family := range []func(name string, args []any) (any, bool){oracleText, oracleParts, oracleNumber, oracleBits, oracleJSON, oracleTime} {
		if v, ok := family(n.Func.Name, args); ok {
			return finiteOrNil(v)
		}
	}
	panic("no oracle for " + n.Func.Name)
}

// orNil is nil where ok is false.
func orNil(v any, ok bool) any {
	if !ok {
		return nil
	}
	return v
}

func oracleCast(to string, v any) any {
	if s, ok := v.(string); ok {
		return oracleRead(to, s)
	}
	if k, ok := v.(jsonText); ok && to == "string" {
		return string(k)
	}
	number := map[any]int64{true: 1, false: 0}
	switch x := v.(type) {
	case bool:
		return map[string]any{"int": number[x], "float": float64(number[x]), "bool": x, "string": strconv.FormatBool(x)}[to]
	case int64:
		return map[string]any{"int": x, "float": float64(x), "bool": x != 0, "string": strconv.FormatInt(x, 10)}[to]
	case float64:
		switch to {
		case "bool":
			return x != 0
		case "float":
			return finiteOrNil(x)
		}
		if whole, _ := new(big.Float).SetFloat64(within(x)).Int(nil); !math.IsNaN(x) && whole.IsInt64() {
			return whole.Int64()
		}
		return nil
	}
	return v
}

func oracleRead(to, s string) any {
	trimmed := strings.TrimSpace(s)
	switch to {
	case "int":
		v, err := strconv.ParseInt(trimmed, 10, 64)
		return orNil(v, err == nil)
	case "float":
		v, err := strconv.ParseFloat(trimmed, 64)
		return orNil(v, err == nil && regexp.MustCompile(`^[-+.eE0-9]+$`).MatchString(trimmed))
	case "bool":
		return map[string]any{"true": true, "1": true, "false": false, "0": false}[strings.ToLower(trimmed)]
	case "json":
		return orNil(jsonText(s), json.Valid([]byte(s)))
	}
	return s
}

func oracleText(name string, args []any) (any, bool) {
	s, ok := args[0].(string)
	if !ok {
		return nil, false
	}
	runes := []rune(s)
	switch name {
	case "lower":
		return strings.ToLower(s), true
	case "trim":
		return strings.TrimSpace(s), true
	case "starts_with":
		return strings.HasPrefix(s, as[string](args[1])), true
	case "ends_with":
		return strings.HasSuffix(s, as[string](args[1])), true
	case "replace":
		if args[1] == "" {
			return s, true
		}
		return strings.ReplaceAll(s, as[string](args[1]), as[string](args[2])), true
	case "reverse":
		slices.Reverse(runes)
		return string(runes), true
	case "index_of":
		before, _, found := strings.Cut(s, as[string](args[1]))
		return orNil(int64(utf8.RuneCountInString(before)), found), true
	case "split_part":
		parts, at := strings.Split(s, as[string](args[1])), as[int64](args[2])
		if at < 0 {
			at += int64(len(parts))
		}
		if args[1] == "" || at < 0 || at >= int64(len(parts)) {
			return nil, true
		}
		return parts[at], true
	case "from_hex":
		text := strings.TrimSpace(s)
		if len(text) > 2 && strings.HasPrefix(strings.ToLower(text), "0x") {
			text = text[2:]
		}
		v, err := strconv.ParseUint(text, 16, 64)
		return orNil(int64(v), err == nil && len(text) <= 16), true //nolint:gosec // the bits as they are
	case "sha256":
		return fmt.Sprintf("%x", sha256.Sum256([]byte(s))), true
	case "regex_extract":
		group := int64(0)
		if len(args) > 2 {
			group = as[int64](args[2])
		}
		at := regexp.MustCompile(as[string](args[1])).FindStringSubmatchIndex(s)
		if at == nil || at[2*group] < 0 {
			return nil, true
		}
		return s[at[2*group]:at[2*group+1]], true
	case "regex_replace":
		return regexp.MustCompile(as[string](args[1])).ReplaceAllString(s, as[string](args[2])), true
	}
	return nil, false
}

// oracleParts are the functions of a text and a count of characters.
func oracleParts(name string, args []any) (any, bool) {
	s, ok := args[0].(string)
	if !ok || len(args) < 2 {
		return nil, false
	}
	n, ok := args[1].(int64)
	if !ok {
		return nil, false
	}
	runes := []rune(s)
	size := int64(len(runes))
	switch name {
	case "left":
		return orNil(string(runes[:max(0, min(n, size))]), n >= 0), true
	case "right":
		return orNil(string(runes[size-max(0, min(n, size)):]), n >= 0), true
	case "substring":
		from := max(0, min(n, size))
		to := size
		if len(args) > 2 {
			if as[int64](args[2]) < 0 {
				return nil, true
			}
			to = from + min(as[int64](args[2]), size-from)
		}
		return orNil(string(runes[from:to]), n >= 0), true
	case "repeat":
		return orNil(strings.Repeat(s, int(max(0, min(n, 5)))), n >= 0), true
	case "pad_left", "pad_right":
		fill := " "
		if len(args) > 2 {
			fill = as[string](args[2])
		}
		if n < 0 || fill == "" || n > 2*expr.MaxText {
			return nil, true
		}
		padding := string([]rune(strings.Repeat(fill, int(max(0, n-size))))[:max(0, n-size)])
		if name == "pad_left" {
			return padding + s, true
		}
		return s + padding, true
	}
	return nil, false
}

func oracleNumber(name string, args []any) (any, bool) {
	plain := map[string]func(float64) float64{
		"floor": math.Floor, "ceil": math.Ceil, "trunc": math.Trunc, "sqrt": math.Sqrt, "exp": math.Exp, "ln": math.Log, "log10": math.Log10,
		"sin": math.Sin, "cos": math.Cos, "tan": math.Tan, "asin": math.Asin, "acos": math.Acos, "atan": math.Atan,
		"degrees": func(v float64) float64 { return v / math.Pi * 180 }, "radians": func(v float64) float64 { return v / 180 * math.Pi },
	}
	pair := map[string]func(a, b float64) float64{"pow": math.Pow, "hypot": math.Hypot, "atan2": math.Atan2}
	if i, ok := args[0].(int64); ok {
		switch name {
		case "round", "trunc", "floor", "ceil":
			return i, true
		case "sign":
			return int64(big.NewInt(i).Sign()), true
		case "clamp":
			low, high := as[int64](args[1]), as[int64](args[2])
			all := []int64{i, low, high}
			slices.Sort(all)
			return orNil(all[1], low <= high), true
		}
		return nil, false
	}
	f, ok := args[0].(float64)
	if !ok {
		return nil, false
	}
	if one, found := plain[name]; found {
		return one(f), true
	}
	if two, found := pair[name]; found {
		return two(f, as[float64](args[1])), true
	}
	switch name {
	case "round":
		if len(args) == 1 {
			return math.Round(f), true
		}
		scale := math.Pow(10, float64(as[int64](args[1])))
		if math.IsInf(f*scale, 0) {
			return f, true
		}
		return math.Round(f*scale) / scale, true
	case "log":
		base := as[float64](args[1])
		switch {
		case !(f > 0) || !(base > 0) || base == 1:
			return nil, true
		case base == 2:
			return math.Log2(f), true
		case base == 10:
			return math.Log10(f), true
		}
		return math.Log(f) / math.Log(base), true
	case "sign":
		if math.IsNaN(f) {
			return nil, true
		}
		return int64(cmp.Compare(f, 0)), true
	case "clamp":
		low, high := as[float64](args[1]), as[float64](args[2])
		if !(low <= high) || math.IsNaN(f) {
			return nil, true
		}
		if f < low {
			return low, true
		}
		if f > high {
			return high, true
		}
		return f, true
	case "is_nan":
		return f != f, true
	case "is_finite":
		return f-f == 0, true // infinity less itself is NaN
	}
	return nil, false
}

func oracleBits(name string, args []any) (any, bool) {
	i, ok := args[0].(int64)
	if !ok {
		return nil, false
	}
	text := fmt.Sprintf("%064b", uint64(i)) //nolint:gosec // the bits as they are
	read := func(bits string) int64 {
		v, _ := strconv.ParseUint(bits, 2, 64)
		return int64(v) //nolint:gosec // the bits as they are
	}
	var j int64
	if len(args) > 1 {
		j, ok = args[1].(int64)
	}
	place := ok && j >= 0 && j < 64
	switch name {
	case "hex":
		return strconv.FormatUint(uint64(i), 16), true //nolint:gosec // the bits as they are
	case "bit":
		return orNil(place && text[63-j&63] == '1', place), true
	case "bit_and":
		return i & j, true
	case "bit_or":
		return i | j, true
	case "bit_xor":
		return i ^ j, true
	case "bit_not":
		return -i - 1, true
	case "bit_count":
		return int64(bits.OnesCount64(uint64(i))), true //nolint:gosec // the bits as they are
	case "shift_left":
		return orNil(read(text[j&63:]+strings.Repeat("0", int(j&63))), place), true
	case "shift_right":
		return orNil(read(text[:64-j&63]), place), true
	}
	return nil, false
}

// oracleFind gives the text of the value at the path, "" where there is none.
func oracleFind(text, path string) string {
	steps, err := expr.ParsePath(path)
	if err != nil {
		panic(err)
	}
	for _, s := range steps {
		var object map[string]json.RawMessage
		var list []json.RawMessage
		switch {
		case s.Index < 0 && json.Unmarshal([]byte(text), &object) == nil:
			text = string(object[s.Key])
		case s.Index >= 0 && json.Unmarshal([]byte(text), &list) == nil && s.Index < len(list):
			text = string(list[s.Index])
		default:
			return ""
		}
	}
	return strings.TrimSpace(text)
}

func oracleJSON(name string, args []any) (any, bool) {
	k, ok := args[0].(jsonText)
	if !ok {
		return nil, false
	}
	if len(args) > 1 {
		k = jsonText(oracleFind(string(k), as[string](args[1])))
		if k == "" || k == "null" && name != "json_type" {
			return nil, true
		}
		if name == "json_get" {
			return k, true
		}
	}
	decoder := json.NewDecoder(strings.NewReader(string(k)))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		panic(err)
	}
	number, isNumber := v.(json.Number)
	switch name {
	case "json_string":
		s, isString := v.(string)
		whole := !strings.ContainsRune(s, utf8.RuneError) // which encoding/json puts for half of a surrogate pair
		return orNil(s, isString && whole), true
	case "json_bool":
		b, isBool := v.(bool)
		return orNil(b, isBool), true
	case "json_number":
		f, err := number.Float64()
		return orNil(f, isNumber && err == nil), true
	case "json_int":
		whole, exact := new(big.Rat).SetString(number.String())
		if !isNumber || !exact || !whole.IsInt() {
			return nil, true
		}
		return fromBig(whole.Num()), true
	case "json_length":
		list, isList := v.([]any)
		object, isObject := v.(map[string]any)
		return orNil(int64(len(list)+len(object)), isList || isObject), true
	case "json_type":
		return map[string]any{"map": "object", "[]i": "array", "str": "string", "boo": "bool", "jso": "number", "<ni": "null"}[fmt.Sprintf("%T", v)[:3]], true
	}
	return nil, false
}

// within is a float that big.Float takes, and still no int where x is none.
func within(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return max(-1e300, min(1e300, x))
}

func oracleTime(name string, args []any) (any, bool) {
	if s, ok := args[0].(string); ok {
		return oracleReadTime(name, s, args[1:]), name == "timestamp" || name == "parse_time"
	}
	if i, ok := args[0].(int64); ok && name == "timestamp" {
		return orNil(instant(i*1000), i >= minTime/1000 && i <= maxTime/1000), true
	}
	u, ok := args[0].(instant)
	if !ok {
		return nil, false
	}
	big1 := big.NewInt(int64(u))
	zone, zoned := time.UTC, false
	if last, isText := args[len(args)-1].(string); isText && strings.Contains(last+"UTC", "/") || isText && last == "UTC" {
		zone, _ = time.LoadLocation(last)
		zoned = true
	}
	units := map[string]int64{"us": 1, "ms": 1000, "s": 1e6, "m": 60e6, "h": 3600e6, "d": 86400e6}
	switch name {
	case "epoch_s", "epoch_ms", "epoch_us":
		unit := map[string]int64{"epoch_s": 1e6, "epoch_ms": 1e3, "epoch_us": 1}[name]
		return new(big.Int).Div(big1, big.NewInt(unit)).Int64(), true
	case "time_between":
		span := new(big.Int).Sub(big.NewInt(int64(as[instant](args[1]))), big1)
		return orNil(float64(span.Int64())/float64(units[as[string](args[2])]), span.IsInt64()), true
	case "add_time":
		span := big.NewInt(-5400e6)
		if len(args) == 3 {
			span.Mul(big.NewInt(as[int64](args[1])), big.NewInt(units[as[string](args[2])]))
		}
		sum := span.Add(span, big1)
		return orNil(instant(sum.Int64()), sum.IsInt64() && written(sum.Int64())), true
	case "format_time":
		if year := time.UnixMicro(int64(u)).In(zone).Year(); !written(int64(u)) || year < 1 || year > 9999 {
			return nil, true
		}
		return oracleFormat(time.UnixMicro(int64(u)).In(zone), as[string](args[1])), true
	case "truncate":
		return oracleTruncate(int64(u), as[string](args[1]), zone, zoned), true
	}
	if year := time.UnixMicro(int64(u)).In(zone).Year(); zoned && (!written(int64(u)) || year < 1 || year > 9999) {
		return nil, true
	}
	return oraclePart(name, time.UnixMicro(int64(u)).In(zone))
}

func oraclePart(name string, t time.Time) (any, bool) {
	isoYear, week := t.ISOWeek()
	part, ok := map[string]int{
		"year": t.Year(), "quarter": 1 + (int(t.Month())-1)/3, "month": int(t.Month()), "day": t.Day(), "hour": t.Hour(), "minute": t.Minute(), "second": t.Second(),
		"weekday": [...]int{7, 1, 2, 3, 4, 5, 6}[t.Weekday()], "day_of_year": t.YearDay(), "week": week, "week_year": isoYear,
	}[name]
	return int64(part), ok
}

func oracleReadTime(name, s string, constants []any) any {
	zone := time.UTC
	layouts := []string{"2006-01-02 15:04:05", "2006-01-02"}
	if name == "parse_time" {
		layouts = []string{"2.1.2006 15:04"}
		if as[string](constants[0]) != "%d.%m.%Y %H:%M" {
			layouts = []string{"2006-01-02 15:04:05.000000-07:00"}
		}
		constants = constants[1:]
	}
	if len(constants) > 0 {
		zone, _ = time.LoadLocation(as[string](constants[0]))
	}
	for _, layout := range layouts {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if strings.HasSuffix(layout, "00") {
			return orNil(instant(t.UnixMicro()), written(t.UnixMicro()))
		}
		// Of the instants that the zone shows like this the last one, or what the distance before the change gives.
		var found any
		for _, around := range []int{+24, -24} {
			_, seconds := t.Add(time.Duration(around) * time.Hour).In(zone).Zone()
			at := t.Add(-time.Duration(seconds) * time.Second)
			if shown := at.In(zone).Format(time.DateTime); found == nil && shown == t.Format(time.DateTime) || found == nil && around < 0 {
				found = instant(at.UnixMicro())
			}
		}
		return found
	}
	return nil
}

func oracleFormat(t time.Time, layout string) string {
	isoYear, week := t.ISOWeek()
	return strings.NewReplacer(
		"%Y", fmt.Sprintf("%04d", t.Year()), "%y", fmt.Sprintf("%02d", t.Year()%100), "%m", t.Format("01"), "%d", t.Format("02"), "%j", t.Format("002"), "%H", t.Format("15"),
		"%I", t.Format("03"), "%p", t.Format("PM"), "%M", t.Format("04"), "%S", t.Format("05"), "%L", t.Format(".000")[1:], "%f", t.Format(".000000")[1:],
		"%a", t.Format("Mon"), "%A", t.Format("Monday"), "%b", t.Format("Jan"), "%B", t.Format("January"), "%u", strconv.Itoa((int(t.Weekday())+6)%7+1),
		"%G", fmt.Sprintf("%04d", isoYear), "%V", fmt.Sprintf("%02d", week), "%s", strconv.FormatInt(t.Unix(), 10), "%z", t.Format("-07:00"), "%%", "%",
	).Replace(layout)
}

// oracleTruncate looks for the first instant at which the zone's clock shows the unit's start or later.
func oracleTruncate(v int64, unit string, zone *time.Location, zoned bool) any {
	if zoned && !written(v) {
		return nil
	}
	t := time.UnixMicro(v).In(zone)
	y, m, d := t.Date()
	minutes := t.Hour()*60 + t.Minute()
	every := map[string]int{"1m": 1, "15m": 15, "1h": 60, "90m": 90, "8h": 480}[unit]
	switch unit {
	case "1d":
		minutes = 0
	case "1w":
		d, minutes = d-(int(t.Weekday())+6)%7, 0
	case "1mo":
		d, minutes = 1, 0
	case "3mo":
		m, d, minutes = (m-1)/3*3+1, 1, 0
	case "1y":
		m, d, minutes = 1, 1, 0
	default:
		minutes -= minutes % every
	}
	want := time.Date(y, m, d, minutes/60, minutes%60, 0, 0, time.UTC)
	_, seconds := t.Zone()
	found := want.Add(-time.Duration(seconds) * time.Second)
	if every == 0 || every > 60 {
		at := want.Add(-30 * time.Hour)
		for range 10 {
			_, seconds = at.In(zone).Zone()
			_, end := at.In(zone).ZoneBounds()
			candidate := want.Add(-time.Duration(seconds) * time.Second)
			if candidate.Before(at) {
				candidate = at
			}
			if end.IsZero() || candidate.Before(end) {
				found = candidate
				break
			}
			at = end
		}
	}
	micros := found.UnixMicro()
	if zoned {
		return orNil(instant(micros), written(micros))
	}
	return orNil(instant(micros), time.UnixMicro(micros).Equal(found))
}
