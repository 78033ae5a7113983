package flowdef_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func kinds() []flowdef.ConnectorSpec {
	return []flowdef.ConnectorSpec{
		{Kind: "mqtt", Options: []flowdef.Option{
			{Name: "address", Type: flowdef.OptionString, Required: true, Help: "host:port"},
			{Name: "password", Type: flowdef.OptionSecret, Help: "its password"},
		}},
		{Kind: "file", Options: []flowdef.Option{{Name: "root", Type: flowdef.OptionString, Required: true, Help: "folder"}}},
	}
}

func lookup() flowdef.References {
	return flowdef.References{
		Env: func(name string) (string, bool) { return "from " + name, name == "SET" },
		File: func(name string) ([]byte, error) {
			if name != "pw.txt" {
				return nil, errors.New("no such file")
			}
			return []byte("from the file\n"), nil
		},
	}
}

func TestParseConnections(t *testing.T) {
	t.Parallel()
	got, err := flowdef.ParseConnections([]byte(`
a: {kind: mqtt, address: "${SET}", password: "@pw.txt"}
b: {kind: mqtt, address: "x:1", password: "${SET}"}
c: {kind: mqtt, address: "x:1", password: "@@home"}
d: {kind: file, root: /data}
`), kinds(), lookup())
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, c := range got {
		p := c.Secrets["password"]
		said = append(said, fmt.Sprint(c.Name, c.Kind, c.Options, p.Reveal()))
	}
	want := []string{
		"amqttmap[address:from SET]from the file", "bmqttmap[address:x:1]from SET", "cmqttmap[address:x:1]@home", "dfilemap[root:/data]",
	}
	if strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", said, want)
	}
	if printed := fmt.Sprintf("%+v", got); strings.Contains(printed, "from the file") {
		t.Errorf("printing shows a secret: %s", printed)
	}
}

func TestParseConnectionsSaysWhereAndWhat(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"kind":                {"a: {kind: mqqt, address: x}", `line 1, column 5: connection "a": unknown kind "mqqt"; did you mean "mqtt"?`},
		"no kind":             {"a: {address: x}", "has no kind"},
		"option":              {"a:\n  kind: mqtt\n  roots: x\n", "line 3, column 3"},
		"missing":             {"a: {kind: file}", `"root" is missing`},
		"variable":            {"a: {kind: file, root: \"${UNSET}\"}", "UNSET is not set"},
		"no file":             {"a: {kind: mqtt, address: x, password: \"@other\"}", "cannot read its file"},
		"no map":              {"a: 7", "must be written"},
		"empty":               {" \n", "no connections"},
		"twice":               {"a: {kind: file, root: x}\na: {kind: file, root: y}\n", "line 2"},
		"bad yaml":            {"a: {", "line"},
		"bare variable":       {"a: {kind: mqtt, address: ${SET}}", `line 1, column 26: write "${SET}" in quotes`},
		"bare variable below": {"# c\n\na: {kind: file, root: x}\nÖl: {kind: mqtt,\n  address: ${SET}}", `line 5, column 12: write "${SET}" in quotes`},
		"brace in line 1":     {"a: {kind: {b} c}", "line 1, column 15: the text is neither"},
		"brace in line 3":     {"\n\na: {kind: {b} c}\n", "line 3, column 15: the text is neither"},
		"control character":   {"a: 1\nb: \x01", "line 2, column 4: the text is neither"},
		"scanner":             {"a: b: c", "line 1, column 5: the text is neither"},
		"NUL":                 {"a: {kind: file, root: \"x\\0\"}", "line 1, column 25: the text holds a NUL"},
		"not UTF-8":           {"a: \xff", "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := flowdef.ParseConnections([]byte(c.text), kinds(), lookup())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
}
