package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
)

const (
	// chunkBytes is how much of a file is read at a time.
	chunkBytes = 1 << 18
	// pollEvery is how often a following source looks for what is new.
	pollEvery = time.Second
)

// reader finds, reads and decodes files in its own goroutine.
type reader struct {
	settings
	ahead *ahead
	// known is how far every file was read, as of the last delivery that was made.
	known entries
	// encoded is the last cursor and appended how many entries it got since it was written as a whole.
	encoded  []byte
	appended int
	// seen is the size and time of change at the last look at a file that ends in an incomplete record.
	seen map[uint64]stamp
	// headerless are the decoders of formats without a header; byHeader are the last ones made for a header, names.
	headerless *decoders
	byHeader   *decoders
	names      []string
	// workers is how many chunks of a large file are decoded at a time.
	workers int
	// pending are the chunks that are not handed over yet, the oldest first.
	pending []*piece
	// carry is the incomplete record at the end of the last piece.
	carry []byte
	// told says that the caller has heard, by a delivery, that the source can read since it began or failed.
	told bool
}

type stamp struct{ size, modified int64 }

// decoders are a format's decoders, one for every worker, made when needed.
type decoders struct {
	create func() decode.Decoder
	made   []decode.Decoder
}

func (d *decoders) at(i int) decode.Decoder {
	for i >= len(d.made) {
		d.made = append(d.made, d.create())
	}
	return d.made[i]
}

func newReader(s settings, known entries, workers int) *reader {
	if s.Drift != connector.DriftIgnore {
		workers = 1 // which members come, and which never do, is for one decoder to see
	}
	r := &reader{settings: s, known: known, seen: make(map[uint64]stamp), workers: workers}
	switch {
	case s.format == formatJSONL:
		r.headerless = &decoders{create: func() decode.Decoder {
			d := decode.NewJSON(s.Schema, s.loc)
			d.Watch(s.Drift, s.Declared)
			return d
		}}
	case !s.header:
		declared := s.Declared
		if declared == nil {
			declared = s.Schema
		}
		r.headerless = r.csv(declared.Names())
	}
	return r
}

func (r *reader) csv(names []string) *decoders {
	return &decoders{create: func() decode.Decoder {
		d := decode.NewCSV(r.Schema, names, r.delimiter, r.loc)
		if r.decimalComma {
			d.DecimalComma()
		}
		return d
	}}
}

// run reads until everything is read, or for ever when it follows, or until Close.
func (r *reader) run(_ context.Context, a *ahead) {
	r.ahead = a
	for {
		err := r.pass()
		if err == nil && !r.follow {
			err = r.missed()
		}
		switch {
		case errors.Is(err, connector.ErrClosed):
			return
		case err != nil:
			r.told = false
			if !a.Fail(err) {
				return
			}
		case !r.follow:
			a.End()
			return
		case !r.tell():
			return
		}
		// There may be hundreds of files' followers on an agent, and most of them wait: they must not hold buffers.
		r.carry, r.pending = nil, nil
		a.Release()
		if !a.Wait(pollEvery) {
			return
		}
	}
}

// missed says, when everything was read, which members of the schema never came: before that they may come in the next
// file. It is an error where they must come.
func (r *reader) missed() error {
	if r.format != formatJSONL {
		return nil
	}
	d, isJSON := r.headerless.at(0).(*decode.JSON) // the only one, where that matters
	if !isJSON {
		return nil
	}
	if err := d.Absent(); err != nil {
		return &connector.PermanentError{Err: fmt.Errorf("the files %s in %s: %w", r.pattern, r.root, err)}
	}
	var told connector.Delivery
	for _, note := range d.Drift(true) {
		told.Failed.Note(connector.FailedRecord{Where: r.pattern, Reason: note})
	}
	if told.Failed.Notes == nil {
		return nil
	}
	p, going := r.ahead.Take()
	if !going {
		return connector.ErrClosed
	}
	if p.Deliveries = append(p.Deliveries, told); !r.ahead.Send(p) {
		return connector.ErrClosed
	}
	return nil
}

// tell says once that the source reads and has nothing.
func (r *reader) tell() bool {
	if r.told {
		return true
	}
	r.told = true
	return r.ahead.Quiet()
}

// cursor is the position with the entry as given. A cursor grows by the entries that changed, the last one of an id
// counts, and is written anew now and then: so a delivery costs the same whether there are ten files or a hundred thousand.
// The cursors handed out before share its memory, which is only ever appended to.
func (r *reader) cursor(e entry) connector.Cursor {
	if r.encoded == nil || r.appended > 16+len(r.known)/4 {
		r.encoded, r.appended = r.known.encode(), 0
	} else {
		r.encoded, r.appended = e.append(r.encoded), r.appended+1
	}
	return slices.Clip(r.encoded)
}

// listed is a file that matches.
type listed struct {
	path string
	id   uint64
	info fs.FileInfo
}

// pass reads what is new in every file that matches, in the order of their paths.
func (r *reader) pass() error {
	root, err := os.OpenRoot(r.root)
	if err != nil {
		return fmt.Errorf("the folder %s cannot be opened: %w", r.root, cause(err))
	}
	defer root.Close() //nolint:errcheck // it was only read
	files, err := r.list(root)
	if err != nil {
		return err
	}
	r.forget(files)
	for _, f := range files {
		if err := r.file(root, f); err != nil {
			return err
		}
	}
	return nil
}

// list finds the files that match.
func (r *reader) list(root *os.Root) ([]listed, error) {
	// A pattern matches nothing in a folder that cannot be read, so that is asked first.
	fixed := fixedFolder(r.pattern)
	folder, err := root.Open(fixed)
	if err == nil {
		_, err = folder.ReadDir(1)
		_ = folder.Close()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the folder %s in %s cannot be read: %w", fixed, r.root, cause(err))
	}
	paths, err := fs.Glob(root.FS(), r.pattern)
	if err != nil {
		return nil, fmt.Errorf("the files %s in %s cannot be listed: %w", r.pattern, r.root, cause(err))
	}
	slices.Sort(paths)
	var files []listed
	for _, p := range paths {
		info, err := root.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // gone since
		case err != nil:
			return nil, r.refused(p, err)
		case info.Mode().IsRegular():
			files = append(files, listed{path: p, id: identify(info, p), info: info})
		}
	}
	return files, nil
}

// fixedFolder is the part of a pattern before the first folder or name with a wildcard.
func fixedFolder(pattern string) string {
	if i := strings.IndexAny(pattern, "*?["); i >= 0 {
		pattern = pattern[:i]
	}
	return path.Dir(pattern + "x") // what follows the last slash is a name, or the start of one
}

// cause takes away what the system's error says of operation and path, because the message around it says that already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// refused tells a link that leads out of the root from what may pass.
func (r *reader) refused(p string, err error) error {
	err = fmt.Errorf("the file %s in %s cannot be read: %w", p, r.root, cause(err))
	if strings.Contains(err.Error(), "escapes") { // os.Root has no error value for it
		return &connector.PermanentError{Err: fmt.Errorf("%w; links out of the folder are refused, so move the file or name another root", err)}
	}
	return err
}

// forget drops what is known of files that no longer exist. An empty folder is more likely a share that is not mounted
// than a reason to read everything again, so then nothing is forgotten.
func (r *reader) forget(files []listed) {
	if len(files) == 0 {
		return
	}
	exists := make(map[uint64]bool, len(files))
	for _, f := range files {
		exists[f.id] = true
	}
	before := len(r.known)
	maps.DeleteFunc(r.known, func(id uint64, _ entry) bool { return !exists[id] })
	if len(r.known) < before {
		r.encoded = nil
	}
	maps.DeleteFunc(r.seen, func(id uint64, _ stamp) bool { return !exists[id] })
}

// file reads what is new in one file.
func (r *reader) file(root *os.Root, l listed) error {
	size, modified := l.info.Size(), l.info.ModTime().UnixNano()
	e, known := r.known[l.id]
	if known && e.offset == size && e.modified == modified {
		return nil
	}
	if now := (stamp{size, modified}); r.seen[l.id] == now {
		return nil
	}
	f, err := root.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return r.refused(l.path, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	o := &open{reader: r, f: f, path: l.path, entry: e}
	if err := o.continues(known, l.id, size); err != nil {
		return r.refused(l.path, err)
	}
	if err := o.read(size); err != nil {
		return err
	}
	if o.entry.offset == size && o.long == nil {
		o.entry.modified = modified
		r.known[l.id] = o.entry
	} else {
		r.seen[l.id] = stamp{size, modified}
	}
	return nil
}

// open is a file being read.
type open struct {
	*reader
	f    *os.File
	path string
	// entry is as of the last delivery. The next chunk to read begins at, in the line, with what is carried over.
	entry    entry
	at, line int64
	head     []byte
	decoders *decoders
	team     *team
	// notes are what the header and the schema do not share, until the next delivery.
	notes []string
	// long is the beginning of a record that is too long, while its end is looked for.
	long []byte
}

// continues decides whether the file is the one that was read before, and starts over otherwise.
func (o *open) continues(known bool, id uint64, size int64) error {
	if err := o.readHead(); err != nil {
		return err
	}
	same := known && size >= o.entry.offset && int64(len(o.head)) >= o.entry.headLen &&
		hashOf(o.head[:o.entry.headLen]) == o.entry.head
	if !same {
		o.entry = entry{id: id, line: 1, head: hashOf(nil)}
	}
	return nil
}

func (o *open) readHead() error {
	if cap(o.head) == 0 {
		o.head = make([]byte, 0, headBytes)
	}
	n, err := o.f.ReadAt(o.head[:headBytes], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the beginning: %w", cause(err))
	}
	o.head = o.head[:n]
	return nil
}

// begin finds the decoder and the first record. It says false when the header is not complete yet.
func (o *open) begin() (bool, error) {
	start, line := int64(0), int64(1)
	if bytes.HasPrefix(o.head, []byte("\xef\xbb\xbf")) {
		start = 3
	}
	o.decoders = o.headerless
	if o.decoders == nil {
		names, next, lines, err := o.header(int(start))
		if err != nil || next < 0 {
			return false, err
		}
		if o.byHeader == nil || !slices.Equal(names, o.names) {
			if err := decode.CheckHeader(o.Drift, o.Schema, names); err != nil {
				return false, &connector.PermanentError{Err: fmt.Errorf("file %s in %s: %w", o.path, o.root, err)}
			}
			if o.notes, err = o.drift(names); err != nil {
				return false, err
			}
			o.byHeader, o.names = o.csv(names), names
		}
		o.decoders = o.byHeader
		start, line = int64(next), line+lines
	}
	if o.entry.offset < start {
		o.entry.offset, o.entry.line = start, line
	}
	return true, nil
}

// drift says what the names of a header and the schema do not share.
func (o *open) drift(names []string) ([]string, error) {
	declared := o.Declared
	if declared == nil {
		declared = o.Schema
	}
	notes, err := decode.CheckDrift(o.Drift, declared, names)
	if err != nil {
		return nil, &connector.PermanentError{Err: fmt.Errorf("file %s in %s: %w", o.path, o.root, err)}
	}
	return notes, nil
}

// header reads the header of a CSV file.
func (o *open) header(off int) (names []string, next int, lines int64, err error) {
	for n := 64 << 10; n <= 2*decode.MaxRecord; n *= 2 {
		text := make([]byte, n)
		got, err := o.f.ReadAt(text, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, 0, o.refused(o.path, err)
		}
		text = text[:got]
		whole := got < n
		if whole && got <= off {
			return nil, -1, 0, nil // nothing there yet
		}
		names, next, err := decode.Header(text, off, o.delimiter, whole && !o.follow)
		if err != nil {
			return nil, 0, 0, &connector.PermanentError{Err: fmt.Errorf("the header of file %s in %s: %w", o.path, o.root, err)}
		}
		if next >= 0 {
			return names, next, int64(bytes.Count(text[:next], []byte{'\n'})), nil
		}
		if whole {
			return nil, -1, 0, nil
		}
	}
	return nil, 0, 0, &connector.PermanentError{Err: fmt.Errorf("the header of file %s in %s is longer than %d MiB; is it a CSV file?", o.path, o.root, decode.MaxRecord>>20)}
}

// deliver adds a delivery with the cursor behind it.
func (o *open) deliver(p *piece, d connector.Delivery) {
	if headLen := min(o.entry.offset, headBytes); headLen > o.entry.headLen {
		if int64(len(o.head)) < headLen {
			_ = o.readHead() // a shorter head only tells less
		}
		o.entry.headLen = min(headLen, int64(len(o.head)))
		o.entry.head = hashOf(o.head[:o.entry.headLen])
	}
	for _, n := range o.notes {
		d.Failed.Note(connector.FailedRecord{Where: o.path, Reason: n})
	}
	o.notes = nil
	o.entry.modified = 0
	o.known[o.entry.id] = o.entry
	d.Cursor = o.cursor(o.entry)
	o.told = true
	p.Deliveries = append(p.Deliveries, d)
}
