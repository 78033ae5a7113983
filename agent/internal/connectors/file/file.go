// Package file reads records from files in a folder: CSV and JSON lines, once or as they grow. It also appends rows to
// files there.
//
// It never leaves the folder that its connection names, and only a sink changes anything there. A source has one
// goroutine, which reads and decodes ahead of the caller and ends with Close; while it reads a large file, further ones
// decode for it.
package file

import (
	"io/fs"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// Kind is the connector's name in a connection.
const Kind = "file"

// fileConnector decodes a large file in that many goroutines; 0 leaves it to the number of processors.
type fileConnector struct{ decoding int }

// New makes the connector.
func New() connector.Connector { return fileConnector{} }

// NewWithWorkers makes the connector with n goroutines that decode a large file, whatever processors there are. What a
// source delivers is the same with any number.
func NewWithWorkers(n int) connector.Connector { return fileConnector{decoding: n} }

func (c fileConnector) workers() int {
	if c.decoding > 0 {
		return c.decoding
	}
	return min(runtime.GOMAXPROCS(0), maxWorkers)
}

// Spec describes the options.
func (fileConnector) Spec() flowdef.ConnectorSpec {
	return flowdef.ConnectorSpec{
		Kind:  Kind,
		Title: "Files",
		Help:  "CSV and JSON lines files in a folder of the agent's machine or of a share mounted there.",
		Options: []flowdef.Option{
			{Name: "root", Type: flowdef.OptionString, Required: true, Help: "The folder; nothing outside it is ever read or written."},
			{Name: "time_zone", Type: flowdef.OptionString, Default: "UTC", Help: "The IANA time zone of times that are written without one."},
		},
		WriteOptions: writeOptions(),
		ReadOptions: []flowdef.Option{
			{Name: "path", Type: flowdef.OptionString, Required: true, Help: "Which files, relative to the root: a name, or a pattern with * and ? and [a-z] in each part."},
			{Name: "format", Type: flowdef.OptionEnum, Enum: []string{formatJSONL, formatCSV}, Required: true, Help: "How records are written: jsonl has one JSON object a line."},
			{Name: "delimiter", Type: flowdef.OptionString, Default: ",", Help: `CSV: the one character between fields; "\t" is a tab.`},
			{Name: "decimal", Type: flowdef.OptionEnum, Enum: []string{".", ","}, Default: ".", Help: "CSV: what stands before a number's decimals. With a comma a number must have no point."},
			{Name: "header", Type: flowdef.OptionBool, Default: "true", Help: "CSV: whether the first record names the columns; without it they are in the order of the schema."},
			{Name: "follow", Type: flowdef.OptionBool, Default: "false", Help: "Whether to wait for new files and appended records, looking once a second."},
		},
		Example:     "lathe-files:\n  kind: file\n  root: /var/lib/lathe/export\n  time_zone: Europe/Berlin\n",
		ReadExample: "with: {path: \"cycles/*.csv\", format: csv, delimiter: \";\", follow: true}\n",
	}
}

// The formats.
const (
	formatJSONL = "jsonl"
	formatCSV   = "csv"
)

// settings is the checked options of a source.
type settings struct {
	connector.SourceSettings
	root, pattern, format string
	delimiter             byte
	header, follow        bool
	// decimalComma says that the numbers of CSV have one.
	decimalComma bool
	loc          *time.Location
}

// NewSource checks the settings.
func (c fileConnector) NewSource(in connector.SourceSettings) (connector.Source, error) {
	spec := c.Spec()
	conn, err := connector.ParseOptions(spec.Options, in.Connection.Options, in.Connection.Secrets)
	if err != nil {
		return nil, err
	}
	with, err := connector.ParseOptions(spec.ReadOptions, in.With, nil)
	if err != nil {
		return nil, err
	}
	s := settings{
		SourceSettings: in,
		root:           conn.String("root"),
		pattern:        with.String("path"),
		format:         with.String("format"),
		header:         with.Bool("header"),
		follow:         with.Bool("follow"),
		decimalComma:   with.String("decimal") == ",",
	}
	if s.loc, err = conn.Location("time_zone"); err != nil {
		return nil, err
	}
	if s.root == "" {
		return nil, &connector.OptionError{Option: "root", Message: "is empty; name the folder"}
	}
	if err := checkPattern(s.pattern); err != nil {
		return nil, err
	}
	if s.delimiter, err = delimiterOf(with.String("delimiter")); err != nil {
		return nil, err
	}
	switch {
	case s.decimalComma && s.format != formatCSV:
		return nil, &connector.OptionError{Option: "decimal", Message: `is for format: csv; in JSON a number has a point. Take it out, and where numbers are texts with a comma, replace it in a map step, as in float(replace(x, ",", "."))`}
	case s.decimalComma && s.delimiter == ',':
		return nil, &connector.OptionError{Option: "decimal", Message: `and the delimiter cannot both be a comma; say which character stands between the fields, such as delimiter: ";"`}
	}
	known, err := decodeCursor(in.Resume)
	if err != nil {
		return nil, err
	}
	return newSource(s, known, c.workers()), nil
}

func checkPattern(pattern string) error {
	message := ""
	switch _, err := path.Match(pattern, ""); {
	case strings.Contains(pattern, `\`):
		message = `separates folders with "/", also on Windows`
	case strings.HasPrefix(pattern, "/") || strings.Contains(pattern, ":"):
		message = "is relative to the connection's root and does not begin with a drive or a slash"
	case strings.Contains("/"+pattern+"/", "/../"):
		message = `does not leave the connection's root: take out ".."`
	case err != nil:
		message = "is not a valid pattern: a bracket is not closed"
	case !fs.ValidPath(pattern) || pattern == ".":
		message = "is not a valid path: write it like cycles/*.csv"
	default:
		return nil
	}
	return &connector.OptionError{Option: "path", Message: message}
}

func delimiterOf(text string) (byte, error) {
	if text == `\t` {
		return '\t', nil
	}
	if len(text) != 1 || text[0] >= 0x80 || strings.ContainsAny(text, "\"\r\n") {
		return 0, &connector.OptionError{Option: "delimiter", Message: `must be one ASCII character such as "," ";" or "\t", and no quote`}
	}
	return text[0], nil
}
