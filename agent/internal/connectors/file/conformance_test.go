package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connector/conformance"
	"github.com/outfeed/outfeed/agent/internal/connectors/file"
)

// folder is a folder with files of 777 records each.
type folder struct {
	*plant
	n int
}

func (f *folder) Settings() connector.SourceSettings {
	return connector.SourceSettings{
		Connection: connector.Connection{Name: "files", Kind: "file", Options: map[string]any{"root": f.dir}}, With: f.with,
	}
}

func (f *folder) record(text string) {
	name := fmt.Sprintf("%04d", f.n/777)
	if _, err := os.Stat(filepath.Join(f.dir, name)); err != nil {
		header := ""
		if f.with["format"] == "csv" {
			header = "name,id\n"
		}
		f.write(name, header)
	}
	f.append(name, text+"\n")
}

func (f *folder) Add(first, end int) {
	var lines []string
	flush := func() {
		if len(lines) > 0 {
			f.record(strings.Join(lines, "\n"))
			f.n += len(lines)
			lines = nil
		}
	}
	for id := first; id < end; id++ {
		line := fmt.Sprintf(`{"name":%q,"id":%d}`, conformance.Name(id), id)
		if f.with["format"] == "csv" {
			line = fmt.Sprintf(`%s,%d`, conformance.Name(id), id)
		}
		lines = append(lines, line)
		if (f.n+len(lines))%777 == 0 {
			flush()
		}
	}
	flush()
}

func (f *folder) AddBad() { f.record("nonsense"); f.n++ }

func (f *folder) Down() {
	if err := os.Rename(f.dir, f.dir+".away"); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) Up() {
	if err := os.Rename(f.dir+".away", f.dir); err != nil {
		f.t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"csv", "jsonl"} {
		for _, follow := range []bool{false, true} {
			t.Run(fmt.Sprint(format, " follow ", follow), func(t *testing.T) {
				t.Parallel()
				conformance.Run(t, conformance.Harness{
					Connector: file.New(), Records: 20000,
					New: func(t *testing.T) conformance.System {
						t.Helper()
						return &folder{plant: newPlant(t, map[string]any{"path": "*", "format": format, "follow": follow})}
					},
				})
			})
		}
	}
}
