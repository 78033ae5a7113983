package all_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/connectors/all"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

var update = flag.Bool("update", false, "write the option tables of docs/connections.md anew")

func TestFind(t *testing.T) {
	t.Parallel()
	for _, c := range all.All() {
		if found, ok := all.Find(c.Spec().Kind); !ok || found.Spec().Kind != c.Spec().Kind {
			t.Errorf("%s is not found", c.Spec().Kind)
		}
	}
	if _, ok := all.Find("fax"); ok {
		t.Error("there is a fax")
	}
}

// TestSpecs holds what the dashboard's form and the documentation are made from.
func TestSpecs(t *testing.T) {
	t.Parallel()
	for _, c := range all.All() {
		s := c.Spec()
		if s.Kind == "" || s.Title == "" || s.Help == "" || s.Example == "" || s.ReadExample == "" {
			t.Errorf("%s: the spec says too little: %+v", s.Kind, s)
		}
		for _, list := range [][]flowdef.Option{s.Options, s.ReadOptions, s.LookupOptions, s.WriteOptions} {
			var names []string
			for _, o := range list {
				if o.Name == "" || o.Type == "" || !strings.HasSuffix(o.Help, ".") {
					t.Errorf("%s: option %+v says too little", s.Kind, o)
				}
				if slices.Contains(names, o.Name) {
					t.Errorf("%s: option %s comes twice", s.Kind, o.Name)
				}
				if (o.Type == flowdef.OptionEnum) != (len(o.Enum) > 0) || (o.Default != "" && o.Enum != nil && !slices.Contains(o.Enum, o.Default)) {
					t.Errorf("%s: option %s has the values %q and the default %q", s.Kind, o.Name, o.Enum, o.Default)
				}
				names = append(names, o.Name)
			}
		}
	}
}

// TestPage compares the option tables of docs/connections.md with the specs.
func TestPage(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "..", "..", "docs", "connections.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for _, c := range all.All() {
		s := c.Spec()
		page = replace(t, page, s.Kind+" connection", table(s.Options)+"\n```yaml\n"+s.Example+"```\n")
		page = replace(t, page, s.Kind+" read", table(s.ReadOptions)+"\n```yaml\n"+s.ReadExample+"```\n")
		if len(s.LookupOptions) > 0 {
			page = replace(t, page, s.Kind+" lookup", table(s.LookupOptions))
		}
		if len(s.WriteOptions) > 0 {
			page = replace(t, page, s.Kind+" write", table(s.WriteOptions))
		}
	}
	if page == string(text) {
		return
	}
	if !*update {
		t.Fatal("docs/connections.md is behind the specs: go test ./agent/internal/connectors/all -update")
	}
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil { //nolint:gosec // the path is this repository's
		t.Fatal(err)
	}
}

// replace puts text between the page's marks of that name.
func replace(t *testing.T, page, name, text string) string {
	t.Helper()
	begin, end := "<!-- "+name+" -->\n", "<!-- end -->"
	before, rest, found := strings.Cut(page, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("docs/connections.md has no %q", strings.TrimSpace(begin))
	}
	return before + begin + text + end + after
}

func table(options []flowdef.Option) string {
	var b strings.Builder
	b.WriteString("| option | type | default | what it is |\n|---|---|---|---|\n")
	for _, o := range options {
		kind, byDefault := string(o.Type), "`"+o.Default+"`"
		if o.Type == flowdef.OptionEnum {
			kind = "`" + strings.Join(o.Enum, "` `") + "`"
		}
		if o.Min != 0 || o.Max != 0 {
			kind += fmt.Sprintf(", %d to %d", o.Min, o.Max)
		}
		switch {
		case o.Required:
			byDefault = "required"
		case o.Default == "":
			byDefault = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", o.Name, kind, byDefault, o.Help)
	}
	return b.String()
}
