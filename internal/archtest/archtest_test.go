// Package archtest holds the rules of the design that a compiler does not: who may import whom, one package comment
// for each package, and the folders that there may be. It reads every Go file of every GOOS by itself, so that its
// result is never a cached one of another tree.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/outfeed/outfeed/"

// rule says what packages of the project the packages under a folder may import. The longest matching folder counts.
type rule struct {
	// folder is a package and what lies below it.
	folder string
	// may lists folders of the project; the folder itself and what lies below it is always allowed.
	may []string
	// not lists folders that may forbids again.
	not []string
}

// leaves are the packages under internal/ that know no other part of the project.
var leaves = []string{"internal/address", "internal/backoff", "internal/buildinfo", "internal/clockskew", "internal/coredump", "internal/durable", "internal/excerpt", "internal/keyfile", "internal/lifecycle", "internal/logging", "internal/mux", "internal/pgserver", "internal/secret", "internal/socket", "internal/source", "internal/terminal"}

// with adds the leaves to a list of folders.
func with(folders ...string) []string { return append(slices.Clone(leaves), folders...) }

// rules is the import table of the design, row by row.
func rules() []rule {
	return []rule{
		{folder: "protocol/expr", may: []string{"internal/excerpt"}},
		{folder: "protocol/flowdef", may: []string{"protocol/expr", "internal/excerpt", "internal/secret"}},
		{folder: "protocol/wire"},
		{folder: "protocol/seal"},
		{folder: "migrations"},
		{folder: "internal", may: leaves},
		{folder: "internal/e2e", may: []string{"agent", "controlplane", "installer", "protocol", "migrations", "internal"}},
		{folder: "internal/archtest"},
		// It knows the agent only as a program that it starts.
		{folder: "internal/bench"},

		{folder: "agent/internal/column", may: with("protocol/expr")},
		{folder: "agent/internal/config", may: with("protocol")},
		{folder: "agent/internal/connector", may: with("protocol", "agent/internal/column")},
		{folder: "agent/internal/decode", may: with("protocol", "agent/internal/column", "agent/internal/connector")},
		{folder: "agent/internal/connectors", may: with("protocol", "agent/internal/column", "agent/internal/connector", "agent/internal/decode")},
		{folder: "agent/internal/engine", may: with("protocol/flowdef", "protocol/expr", "agent/internal/column", "agent/internal/connector", "agent/internal/decode")},
		{folder: "agent/internal/stage", may: with("protocol")},
		{folder: "agent/internal/tunnel", may: with("protocol")},
		{folder: "agent/internal/identity", may: with("protocol")},
		{folder: "agent/internal/policy", may: with("protocol")},
		{folder: "agent/internal/osservice", may: leaves},
		{folder: "agent/internal/supervisor", may: with("protocol", "agent/internal/column", "agent/internal/connector", "agent/internal/engine")},
		{folder: "agent/cmd", may: with("agent", "protocol"), not: []string{"agent/internal"}},
		{folder: "agent", may: with("agent", "protocol"), not: []string{"agent/cmd"}},

		{folder: "controlplane/internal/fleet", may: with("protocol")},
		{folder: "controlplane/internal/postgres", may: with("controlplane/internal/fleet", "migrations")},
		{folder: "controlplane/internal/pgembed", may: leaves},
		{folder: "controlplane/internal/gateway", may: with("protocol", "controlplane/internal/fleet")},
		{folder: "controlplane/internal/httpapi", may: with("protocol", "controlplane/internal/fleet")},
		{folder: "controlplane/internal/auth", may: with("protocol", "controlplane/internal/fleet")},
		{folder: "controlplane/internal/web", may: with("protocol", "controlplane/internal/fleet")},
		{folder: "controlplane/internal/vault", may: with("protocol", "controlplane/internal/fleet")},
		// Main lets the agent's engine run the tests of definitions (ADR 0008).
		{folder: "controlplane/cmd/outfeed-controlplane", may: with("controlplane", "agent", "protocol"), not: []string{"controlplane/internal", "agent/internal"}},
		{folder: "controlplane/cmd/outfeed", may: with("protocol", "controlplane/internal/httpapi/api")},
		{folder: "controlplane", may: with("controlplane", "protocol", "migrations"), not: []string{"controlplane/cmd"}},

		// The demo plant speaks to the agent only as a plant would, so it knows nothing of either side.
		{folder: "installer", may: leaves},
	}
}

// testingOnly are the packages that only tests may import.
var testingOnly = []string{"internal/pgtest", "internal/archtest", "internal/e2e", "agent/internal/connector/conformance", "controlplane/internal/fleet/fleettest", "controlplane/internal/gateway/gatewaytest", "controlplane/internal/httpapi/apitest"}

// file is one parsed Go file.
type file struct {
	// path is relative to the root, with slashes.
	path string
	ast  *ast.File
}

func (f file) folder() string { return path.Dir(f.path) }
func (f file) isTest() bool   { return strings.HasSuffix(f.path, "_test.go") }

// parseAll reads every Go file of the repository.
func parseAll(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..")
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != root && (name == "node_modules" || name == "testdata" || strings.HasPrefix(name, ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		files = append(files, file{path: filepath.ToSlash(rel), ast: parsed})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found only %d Go files: the walk is broken", len(files))
	}
	return files
}

func TestImports(t *testing.T) {
	t.Parallel()
	table := rules()
	for _, f := range parseAll(t) {
		for _, spec := range f.ast.Imports {
			full, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			imported, ours := strings.CutPrefix(full, module)
			if !ours {
				continue
			}
			if why := refuse(table, f, imported); why != "" {
				t.Errorf("%s imports %s: %s", f.path, imported, why)
			}
		}
	}
}

// refuse says why a file may not import a package of the project, or "".
func refuse(table []rule, f file, imported string) string {
	forTests := f.isTest() || slices.ContainsFunc(testingOnly, func(p string) bool { return under(f.folder(), p) })
	if slices.ContainsFunc(testingOnly, func(p string) bool { return under(imported, p) }) && !forTests {
		return "it is for tests only"
	}
	r, ok := ruleOf(table, f.folder())
	if !ok {
		return "no row of the import table covers this folder: add it to the design and to this test"
	}
	if under(imported, r.folder) {
		return ""
	}
	if forTests && (under(imported, "internal/pgtest") || sameSide(f.folder(), imported)) {
		return ""
	}
	in := func(p string) bool { return under(imported, p) }
	if !slices.ContainsFunc(r.may, in) || slices.ContainsFunc(r.not, in) {
		return "the import table does not allow it"
	}
	return ""
}

// sameSide lets a test use the real thing instead of a fake, as long as it stays on its side of the protocol.
func sameSide(folder, imported string) bool {
	for _, side := range []string{"agent", "controlplane"} {
		if under(folder, side) {
			return under(imported, side) || under(imported, "protocol") || under(imported, "migrations")
		}
	}
	return false
}

// ruleOf finds the row with the longest folder that holds this one.
func ruleOf(table []rule, folder string) (found rule, ok bool) {
	for _, r := range table {
		if under(folder, r.folder) && len(r.folder) >= len(found.folder) {
			found, ok = r, true
		}
	}
	return found, ok
}

// under says whether a package is that folder or lies below it.
func under(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

func TestRulesNameWhatExists(t *testing.T) {
	t.Parallel()
	later := []string{"agent/internal/policy", "agent/internal/osservice"}
	for _, r := range rules() {
		if slices.Contains(later, r.folder) {
			continue
		}
		if _, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(r.folder))); err != nil {
			t.Errorf("the import table has a row for %s, which does not exist", r.folder)
		}
	}
}

func TestEachPackageHasOneComment(t *testing.T) {
	t.Parallel()
	comments, packages := map[string][]string{}, map[string]bool{}
	for _, f := range parseAll(t) {
		name := f.folder()
		onlyTests := under(name, "internal/archtest") || under(name, "internal/e2e")
		if f.isTest() && !onlyTests {
			continue
		}
		packages[name] = true
		if f.ast.Doc != nil && !ast.IsGenerated(f.ast) {
			comments[name] = append(comments[name], f.path)
		}
	}
	for name := range packages {
		if n := len(comments[name]); n != 1 {
			t.Errorf("package %s has %d package comments, want one: %v", name, n, comments[name])
		}
	}
}

func TestTopLevelFolders(t *testing.T) {
	t.Parallel()
	want := []string{"agent", "controlplane", "docs", "installer", "internal", "migrations", "protocol"}
	entries, err := os.ReadDir(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "bin" && e.Name() != "dist" && !slices.Contains(want, e.Name()) {
			t.Errorf("the design has no top-level folder %s", e.Name())
		}
	}
}

func TestAgentHasNoWayIn(t *testing.T) {
	t.Parallel()
	forbidden := map[string]string{
		"os/exec":       "the agent starts no processes",
		"plugin":        "the agent loads no code",
		"text/template": "it disables dead-code elimination and makes the agent bigger",
		"html/template": "it disables dead-code elimination and makes the agent bigger",
	}
	// The one process an agent starts is its own program, to verify a damaged store.
	allowed := []string{"agent/cmd/outfeed-agent/verify.go", "agent/verify.go"}
	for _, f := range parseAll(t) {
		if !under(f.folder(), "agent") || f.isTest() || slices.Contains(allowed, f.path) {
			continue
		}
		for _, spec := range f.ast.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why, bad := forbidden[name]; bad {
				t.Errorf("%s imports %s: %s", f.path, name, why)
			}
		}
	}
}
