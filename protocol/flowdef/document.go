package flowdef

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/protocol/expr"
)

// Document writes the reference into a page of the documentation: what stands between `<!-- generated: NAME -->` and
// `<!-- end -->` is replaced by the part of that name.
func Document(page []byte) ([]byte, error) {
	parts := map[string]func() (string, error){
		"verbs":      func() (string, error) { return entries(verbReference()) },
		"windows":    func() (string, error) { return entries(windowsReference()) },
		"functions":  func() (string, error) { return callTable(expr.Functions()), nil },
		"aggregates": func() (string, error) { return callTable(expr.Aggregates()), nil },
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		begin, end := []byte("<!-- generated: "+name+" -->\n"), []byte("<!-- end -->")
		head, rest, found := bytes.Cut(page, begin)
		_, tail, ended := bytes.Cut(rest, end)
		if !found || !ended {
			return nil, fmt.Errorf("the page has no part between %s and %s", bytes.TrimSpace(begin), end)
		}
		text, err := parts[name]()
		if err != nil {
			return nil, fmt.Errorf("the part %s: %w", name, err)
		}
		page = slices.Concat(head, begin, []byte("\n"+text+"\n"), end, tail)
	}
	return page, nil
}

// verbReference is the verbs in the order of the documentation.
func verbReference() []Entry {
	all := slices.Concat(coreReference(), joinReference(), rowsReference(), lookupReference(), detectReference())
	// What has more to tell than one section, such as the types of join, comes behind its verb.
	place := func(e Entry) int {
		verb, _, _ := strings.Cut(e.Name, " ")
		return slices.Index(verbNames(), strings.TrimSuffix(verb, ","))
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return place(a) - place(b) })
	return all
}

// entries writes each entry as a section of its own.
func entries(list []Entry) (string, error) {
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", e.Name, e.Help)
		if len(e.Keys) > 0 {
			b.WriteString("| key | what |\n|---|---|\n")
			for _, k := range e.Keys {
				fmt.Fprintf(&b, "| `%s` | %s |\n", k.Name, k.Help)
			}
			b.WriteByte('\n')
		}
		for _, name := range e.Examples {
			text, err := Examples.ReadFile("examples/" + name + ".yaml")
			if err != nil {
				return "", fmt.Errorf("the example of %s: %w", e.Name, err)
			}
			fmt.Fprintf(&b, "```yaml\n%s```\n\n", text)
		}
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// Explain is the documentation of a word of the language: a verb, a window, a method of detect, a function or an
// aggregate. Without a word it lists them all. Where there is none of that name, the error names the nearest.
func Explain(word string) (string, error) {
	sections := []struct {
		title   string
		entries []Entry
	}{{"verbs", verbReference()}, {"windows", windowsReference()}, {"methods of detect", detectMethodsReference()}}
	calls := []struct {
		title     string
		functions []expr.Function
	}{{"functions", expr.Functions()}, {"aggregates", expr.Aggregates()}}
	var list, text strings.Builder
	var all []string
	for _, s := range sections {
		var names []string
		for _, e := range s.entries {
			name, _, _ := strings.Cut(e.Name, " ")
			name = strings.TrimSuffix(name, ",")
			if names = append(names, name); name == word {
				part, err := entries([]Entry{e})
				if err != nil {
					return "", err
				}
				fmt.Fprintln(&text, part)
			}
		}
		names = slices.Compact(names)
		fmt.Fprintf(&list, "%s: %s\n", s.title, strings.Join(names, " "))
		all = append(all, names...)
	}
	for _, c := range calls {
		var names []string
		for i := range c.functions {
			f := &c.functions[i]
			if names = append(names, f.Name); f.Name == word {
				text.WriteString(explainCall(f))
			}
		}
		fmt.Fprintf(&list, "%s: %s\n", c.title, strings.Join(names, " "))
		all = append(all, names...)
	}
	switch {
	case word == "":
		return list.String(), nil
	case text.Len() > 0:
		return text.String(), nil
	}
	if keys := explainKeys(word); keys != "" {
		return keys, nil
	}
	return "", errors.New(expr.Unknown("word of the language", word, append(all, keyNames()...)))
}

// explainKeys is what is written under a key, such as a rule of validate, in each part of the language that has it; ""
// where none has.
func explainKeys(word string) string {
	var text strings.Builder
	for _, part := range [...]struct {
		kind    string
		entries []Entry
	}{{"", verbReference()}, {"the window ", windowsReference()}, {"the method ", detectMethodsReference()}} {
		for _, e := range part.entries {
			for _, k := range e.Keys {
				if k.Name == word {
					fmt.Fprintf(&text, "`%s` of %s%s: %s\n", k.Name, part.kind, e.Name, k.Help)
				}
			}
		}
	}
	return text.String()
}

// keyNames are the keys that explainKeys knows.
func keyNames() []string {
	var names []string
	for _, e := range slices.Concat(verbReference(), windowsReference(), detectMethodsReference()) {
		for _, k := range e.Keys {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func explainCall(f *expr.Function) string {
	var b strings.Builder
	for i := range f.Signatures {
		s := &f.Signatures[i]
		fmt.Fprintf(&b, "%s%s gives %s\n", f.Name, s, s.Result)
	}
	fmt.Fprintf(&b, "\n%s\n\n    %s", f.Help, f.Example)
	if f.Result != "" {
		fmt.Fprintf(&b, " is %s", f.Result)
	}
	return b.String() + "\n\n"
}

// callTable lists functions, a row each.
func callTable(list []expr.Function) string {
	var b strings.Builder
	b.WriteString("| call | what | example |\n|---|---|---|\n")
	for i := range list {
		f := &list[i]
		calls := make([]string, len(f.Signatures))
		for k := range f.Signatures {
			s := &f.Signatures[k]
			calls[k] = "`" + f.Name + s.String() + "` " + s.Result.String()
		}
		fmt.Fprintf(&b, "| %s | %s | `%s`", strings.Join(calls, "<br>"), f.Help, f.Example)
		if f.Result != "" {
			fmt.Fprintf(&b, " is `%s`", f.Result)
		}
		b.WriteString(" |\n")
	}
	return b.String()
}
