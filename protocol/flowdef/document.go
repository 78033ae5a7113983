package flowdef

import (
	"bytes"
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
		"definition": func() (string, error) { return keyTable(definitionReference()[0].Keys), nil },
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

// keyTable lists keys, a row each.
func keyTable(keys []Key) string {
	var b strings.Builder
	b.WriteString("| key | what |\n|---|---|\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "| `%s` | %s |\n", k.Name, k.Help)
	}
	return b.String()
}

// entries writes each entry as a section of its own.
func entries(list []Entry) (string, error) {
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", e.Name, e.Help)
		if len(e.Keys) > 0 {
			b.WriteString(keyTable(e.Keys) + "\n")
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
