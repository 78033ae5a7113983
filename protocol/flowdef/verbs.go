package flowdef

import "slices"

// Verbs lists the verbs in the order of the documentation.
func Verbs() []Verb {
	return []Verb{
		Read, Filter, Map, Select, Aggregate, Join, Lookup, Union, Sort, Limit, Distinct, Unnest, Validate, Detect, Write, Insight,
	}
}

// flowKeys, stepKeys and the others are what the parser accepts and the JSON Schema describes.
func flowKeys() []string {
	return []string{"flow", "description", "trigger", "on_error", "steps", "tests"}
}

// verbKeys are the keys that may stand beside the verb, other than id and from.
func verbKeys(v Verb) []string {
	switch v {
	case Read:
		return []string{"with", "schema", "refresh", "drift"}
	case Aggregate:
		return []string{"by", "window"}
	case Join:
		return append([]string{"on", "type"}, streamJoinKeys()...)
	case Lookup:
		return lookupKeys()
	case Limit:
		return limitKeys()
	case Distinct:
		return distinctKeys()
	case Unnest:
		return unnestKeys()
	case Detect:
		return detectKeys()
	case Write:
		return writeKeys()
	case Insight:
		return []string{"key", "time"}
	case Filter, Map, Select, Union, Sort, Validate:
	}
	return nil
}

func stepKeys(v Verb) []string {
	keys := []string{"id", string(v)}
	if v != Read && v != Union {
		keys = append(keys, "from")
	}
	return append(keys, verbKeys(v)...)
}

func triggerKeys() []string { return []string{"every", "cron", "timezone", "missed"} }

func testKeys() []string { return []string{"name", "given", "expect"} }

func verbNames() []string {
	verbs := Verbs()
	list := make([]string, len(verbs))
	for i, v := range verbs {
		list[i] = string(v)
	}
	return list
}

// allStepKeys is every key that some step may have.
func allStepKeys() []string {
	var all []string
	for _, v := range Verbs() {
		for _, key := range stepKeys(v) {
			if !slices.Contains(all, key) {
				all = append(all, key)
			}
		}
	}
	return all
}

func typeNames() []string { return []string{"bool", "int", "float", "string", "timestamp", "json"} }
