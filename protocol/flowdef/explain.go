package flowdef

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/protocol/expr"
)

// explained is a part of the reference; kind stands before the names of its entries where a key is said to be of one.
type explained struct {
	title, kind string
	entries     []Entry
}

func explainedParts() []explained {
	return []explained{
		{"", "", definitionReference()},
		{"verbs", "", verbReference()},
		{"windows", "the window ", windowsReference()},
		{"methods of detect", "the method ", detectMethodsReference()},
	}
}

// wordOf is the word that an entry explains: the verb, or the type of a join.
func wordOf(e *Entry) string {
	if _, value, found := strings.Cut(e.Name, ", type: "); found {
		return value
	}
	name, _, _ := strings.Cut(e.Name, " ")
	return strings.TrimSuffix(name, ",")
}

// Explain is the documentation of a word of the language: a verb, a window, a method of detect, a function, an aggregate,
// a key or a value of a key. Without a word it lists all but the keys and values. Where there is none of that name, the
// error names the nearest.
func Explain(word string) (string, error) {
	if word == "" {
		return explainNothing(), nil
	}
	var text strings.Builder
	var all []string
	for _, p := range explainedParts() {
		for i := range p.entries {
			e := &p.entries[i]
			if p.title == "" {
				continue
			}
			if all = append(all, wordOf(e)); wordOf(e) != word {
				continue
			}
			part, err := entries([]Entry{*e})
			if err != nil {
				return "", err
			}
			fmt.Fprintln(&text, part)
		}
	}
	for _, f := range slices.Concat(expr.Functions(), expr.Aggregates()) {
		if all = append(all, f.Name); f.Name == word {
			text.WriteString(explainCall(&f))
		}
	}
	text.WriteString(explainKeys(word))
	if isValue(word) || text.Len() == 0 {
		text.WriteString(explainValues(word))
	}
	if text.Len() > 0 {
		return text.String(), nil
	}
	return "", errors.New(expr.Unknown("word of the language", word, append(all, keyNames()...)))
}

// explainNothing lists the words.
func explainNothing() string {
	var list strings.Builder
	for _, p := range explainedParts() {
		var names []string
		for i := range p.entries {
			if strings.Contains(p.entries[i].Name, ", type: ") {
				continue
			}
			names = append(names, wordOf(&p.entries[i]))
		}
		if p.title != "" {
			fmt.Fprintf(&list, "%s: %s\n", p.title, strings.Join(slices.Compact(names), " "))
		}
	}
	for _, c := range [...]struct {
		title     string
		functions []expr.Function
	}{{"functions", expr.Functions()}, {"aggregates", expr.Aggregates()}} {
		names := make([]string, len(c.functions))
		for i := range c.functions {
			names[i] = c.functions[i].Name
		}
		fmt.Fprintf(&list, "%s: %s\n", c.title, strings.Join(names, " "))
	}
	return list.String()
}

// explainKeys is what is written under a key, such as a rule of validate, in each part of the language that has it and
// is not itself called so; "" where none has.
func explainKeys(word string) string {
	var text strings.Builder
	for _, p := range explainedParts() {
		for i := range p.entries {
			e := &p.entries[i]
			for _, k := range e.Keys {
				if k.Name == word && wordOf(e) != word {
					fmt.Fprintf(&text, "`%s` of %s%s: %s\n", k.Name, p.kind, e.Name, k.Help)
				}
			}
		}
	}
	return text.String()
}

// isValue says whether a word is the value of a type of join, which other verbs have as well.
func isValue(word string) bool {
	return slices.ContainsFunc(verbReference(), func(e Entry) bool {
		return strings.HasSuffix(e.Name, ", type: "+word)
	})
}

// explainValues is the help of every key that has the word in code, such as one of its values; where no key has, that of
// the entries.
func explainValues(word string) string {
	var keys, whole strings.Builder
	for _, p := range explainedParts() {
		for i := range p.entries {
			e := &p.entries[i]
			for _, k := range e.Keys {
				if slices.Contains(codeWords(k.Help), word) {
					fmt.Fprintf(&keys, "`%s`, in `%s` of %s%s: %s\n", word, k.Name, p.kind, e.Name, k.Help)
				}
			}
			if slices.Contains(codeWords(e.Help), word) {
				fmt.Fprintf(&whole, "`%s`, in %s%s: %s\n", word, p.kind, e.Name, e.Help)
			}
		}
	}
	if keys.Len() > 0 {
		return keys.String()
	}
	return whole.String()
}

// codeWords are the words that stand between backquotes in a text.
func codeWords(help string) []string {
	spans := strings.Split(help, "`")
	var words []string
	for i := 1; i < len(spans); i += 2 {
		words = append(words, regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_-]*`).FindAllString(spans[i], -1)...)
	}
	return words
}

// keyNames are the keys that explainKeys knows.
func keyNames() []string {
	var names []string
	for _, p := range explainedParts() {
		for i := range p.entries {
			for _, k := range p.entries[i].Keys {
				names = append(names, k.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
