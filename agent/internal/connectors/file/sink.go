package file

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// datePlace stands in a path for the day on which is written.
const datePlace = "{date}"

func writeOptions() []flowdef.Option {
	return []flowdef.Option{
		{Name: "path", Type: flowdef.OptionString, Required: true, Help: "The file to append to, relative to the root; {date} in it becomes the day of writing in UTC, so that each day has its file."},
		{Name: "format", Type: flowdef.OptionEnum, Enum: []string{formatJSONL, formatCSV}, Default: formatJSONL, Help: "How rows are written: jsonl has one JSON object a line, csv a header first."},
		{Name: "delimiter", Type: flowdef.OptionString, Default: ",", Help: `CSV: the one character between fields; "\t" is a tab.`},
	}
}

// sink appends rows to a file under the root and has them on the disk before Flush returns. It has no goroutines.
type sink struct {
	root, path, format string
	delimiter          byte
	schema             expr.Schema
	held               bytes.Buffer
	line               []byte
	fields             []string
	// now tells the day.
	now connector.Clock
}

// NewSink checks the settings.
func (c fileConnector) NewSink(in connector.SinkSettings) (connector.Sink, error) {
	conn, err := connector.ParseOptions(c.Spec().Options, in.Connection.Options, in.Connection.Secrets)
	if err != nil {
		return nil, err
	}
	with, err := connector.ParseOptions(writeOptions(), in.With, nil)
	if err != nil {
		return nil, err
	}
	s := &sink{root: conn.String("root"), path: with.String("path"), format: with.String("format"), schema: in.Schema, now: time.Now}
	if s.root == "" {
		return nil, &connector.OptionError{Option: "root", Message: "is empty; name the folder"}
	}
	if strings.ContainsAny(s.path, "*?[]") {
		return nil, &connector.OptionError{Option: "path", Message: "names one file, so it has no *, ? or brackets"}
	}
	if err := checkPattern(s.path); err != nil {
		return nil, err
	}
	s.delimiter, err = delimiterOf(with.String("delimiter"))
	return s, err
}

// Write makes the lines.
func (s *sink) Write(b *column.Batch) (held int64, failed connector.Failures) {
	if s.format == formatJSONL {
		for row := range b.Len {
			s.line = append(connector.AppendRowJSON(s.line[:0], b, row), '\n')
			s.held.Write(s.line)
		}
		return int64(s.held.Len()), failed
	}
	for row := range b.Len {
		s.fields = s.fields[:0]
		for i := range b.Cols {
			s.fields = append(s.fields, csvField(&b.Cols[i], row))
		}
		if err := s.record(&s.held); err != nil {
			failed.Add(connector.FailedRecord{Where: "file " + s.path, Reason: err.Error(), Record: strings.Join(s.fields, ",")})
		}
	}
	return int64(s.held.Len()), failed
}

// record writes the fields as one CSV record.
func (s *sink) record(to io.Writer) error {
	w := csv.NewWriter(to)
	w.Comma = rune(s.delimiter)
	if err := w.Write(s.fields); err != nil {
		return fmt.Errorf("make a CSV record: %w", err)
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return fmt.Errorf("make a CSV record: %w", err)
	}
	return nil
}

// csvField is a value as the reader of CSV files takes it; a null is empty.
func csvField(c *column.Column, row int) string {
	if c.Null(row) {
		return ""
	}
	switch c.Type {
	case expr.Bool:
		return strconv.FormatBool(c.Bools[row])
	case expr.Int:
		return strconv.FormatInt(c.Ints[row], 10)
	case expr.Float:
		return strconv.FormatFloat(c.Floats[row], 'g', -1, 64)
	case expr.Timestamp:
		return expr.FormatTimestamp(c.Ints[row])
	case expr.String, expr.JSON:
		return string(c.Bytes(row))
	case expr.Invalid, expr.Null:
	}
	return ""
}

// Flush appends what waits and has it on the disk.
func (s *sink) Flush(context.Context) (failed connector.Failures, err error) {
	if s.held.Len() == 0 {
		return failed, nil
	}
	if err := s.append(); err != nil {
		return failed, fmt.Errorf("write the file %s under %s: %w", s.path, s.root, err)
	}
	s.held.Reset()
	return failed, nil
}

func (s *sink) append() (err error) {
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return fmt.Errorf("open the folder: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	name := strings.ReplaceAll(s.path, datePlace, s.now().UTC().Format(time.DateOnly))
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o750); err != nil {
			return outside(fmt.Errorf("make the folder %s: %w", dir, err))
		}
	}
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return outside(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("find its end: %w", err)
	}
	start, err := s.start(f, size)
	if err != nil {
		return err
	}
	_, err = f.Write(append(start, s.held.Bytes()...))
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		// Rows that are half there would be there twice, or be half a line.
		return errors.Join(fmt.Errorf("append: %w", err), f.Truncate(size))
	}
	return nil
}

// outside says that a path that leaves the folder, as a link can, will never do.
func outside(err error) error {
	if strings.Contains(err.Error(), "escapes") || errors.Is(err, fs.ErrPermission) { // os.Root has no error value for the first
		return &connector.PermanentError{Err: err}
	}
	return err
}

// start is what comes before the rows: the header of a new CSV file, or the end of a line that a crash cut short.
func (s *sink) start(f *os.File, size int64) ([]byte, error) {
	if size == 0 {
		if s.format != formatCSV {
			return []byte{}, nil
		}
		var header bytes.Buffer
		s.fields = append(s.fields[:0], s.schema.Names()...)
		err := s.record(&header)
		return header.Bytes(), err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return nil, fmt.Errorf("read its end: %w", err)
	}
	if last[0] == '\n' {
		return []byte{}, nil
	}
	return []byte{'\n'}, nil
}

// Close forgets what waits.
func (s *sink) Close() error {
	s.held.Reset()
	return nil
}
