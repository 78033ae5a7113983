package flowdef

import (
	"encoding/json"
	"fmt"
)

type object = map[string]any

// JSONSchema is the JSON Schema (draft 2020-12) of a definition, for editors. It describes the form; Parse and Check
// alone decide what is valid.
func JSONSchema() []byte {
	steps := make([]any, 0, len(Verbs()))
	for _, v := range Verbs() {
		steps = append(steps, stepSchema(v))
	}
	root := closed(object{
		"flow":        named("The flow's name."),
		"description": object{"type": "string"},
		"trigger":     triggerSchema(),
		"on_error":    object{"enum": []string{"skip", "stop"}, "description": "What a failing record does; skip counts and samples it."},
		"steps":       object{"type": "array", "minItems": 1, "maxItems": MaxSteps, "items": object{"oneOf": steps}},
		"tests":       object{"type": "array", "items": testSchema()},
	}, "flow", "steps")
	root["$schema"], root["title"] = "https://json-schema.org/draft/2020-12/schema", "Outfeed flow"
	root["$defs"] = object{
		"expression": object{"type": []string{"string", "boolean", "number"}, "description": "An expression."},
		"column":     object{"type": "string", "minLength": 1, "maxLength": maxName},
		"columns":    object{"type": "array", "items": reference("column"), "uniqueItems": true},
		"duration":   object{"type": "string", "pattern": `^(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$`, "minLength": 2},
		"type":       object{"enum": typeNames()},
	}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("flowdef: the JSON Schema is not JSON: %v", err)) // maps, slices, strings and numbers only
	}
	return text
}

// closed is an object of these properties and no others.
func closed(properties object, required ...string) object {
	return object{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

func mapOf(values object) object {
	return object{"type": "object", "minProperties": 1, "additionalProperties": values}
}

func reference(definition string) object { return object{"$ref": "#/$defs/" + definition} }

func named(help string) object {
	return object{"type": "string", "pattern": `^[A-Za-z0-9_][A-Za-z0-9_.-]*$`, "maxLength": maxName, "description": help}
}

func triggerSchema() object {
	return object{"oneOf": []any{
		object{"enum": []string{string(Continuous), string(Manual)}},
		closed(object{"every": reference("duration")}, "every"),
		closed(object{
			"cron":     object{"type": "string", "description": "Minute, hour, day of the month, month, day of the week."},
			"timezone": object{"type": "string"},
			"missed":   object{"enum": []string{"skip", "once"}},
		}, "cron"),
	}}
}

func testSchema() object {
	rows := object{"type": "object", "additionalProperties": object{"type": "array", "items": object{"type": "object"}}}
	return closed(object{
		"name": object{"type": "string"}, "given": rows, "expect": rows,
		"failed":  object{"type": "integer", "minimum": 0, "description": "How many records must fail."},
		"ordered": object{"type": "boolean", "description": "The insights of each name must come in the written order."},
	}, "name", "expect")
}

func stepSchema(v Verb) object {
	properties := object{"id": named("The step's id.")}
	if v != Read && v != Union {
		properties["from"] = named("The id of the step whose rows this one takes; the step before when left out.")
	}
	required := rulesOf()[v].schema(properties)
	return closed(properties, append([]string{string(v)}, required...)...)
}

func readSchema(properties object) []string {
	properties["read"] = object{"type": "string", "description": "A connection."}
	properties["with"] = object{"type": "object"}
	properties["schema"] = mapOf(reference("type"))
	properties["refresh"] = reference("duration")
	properties["drift"] = object{"enum": []string{DriftIgnore, DriftReport, DriftFail}, "description": "What becomes of records that differ from the schema."}
	return []string{"schema"}
}

func filterSchema(properties object) { properties["filter"] = reference("expression") }

func mapSchema(properties object) { properties["map"] = mapOf(reference("expression")) }

func selectSchema(properties object) {
	renames := mapOf(reference("column"))
	properties["select"] = object{"oneOf": []any{
		renames, object{"type": "array", "minItems": 1, "items": object{"oneOf": []any{reference("column"), renames}}},
	}}
}

func aggregateSchema(properties object) {
	properties["aggregate"] = mapOf(object{"type": "string", "description": "A call of an aggregate."})
	properties["by"] = reference("columns")
	properties["window"] = windowSchema()
}

func joinSchema(properties object) []string {
	properties["join"] = named("The id of the right step.")
	properties["on"] = object{"oneOf": []any{reference("columns"), mapOf(reference("column"))}}
	properties["type"] = object{"enum": joinKinds()}
	streamJoinSchema(properties)
	return []string{"on"}
}

func insightSchema(properties object) {
	properties["insight"] = named("The insight's name.")
	properties["key"] = reference("columns")
	properties["time"] = reference("column")
}
