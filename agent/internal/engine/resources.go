package engine

import (
	"errors"
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
)

// errNoScratch says that there is nowhere to spill to.
var errNoScratch = errors.New("more rows must be held than fit in memory, and nothing can be spilled here")

// resources are the memory and the scratch files of one pipeline. They belong to the goroutine that runs it.
type resources struct {
	memory *Memory
	// scratch is nil where nothing may be spilled: in a run with a source that never ends.
	scratch Scratch
	// held says that an operator has rows which no commit covers, such as rows in scratch files. From then on the run
	// commits nothing before its end.
	held bool

	// guard is nil but in the tests of a definition.
	guard *testGuard
	// worker is the goroutine that runs the pipeline; nil where nobody looks.
	worker *worker
	// clock bounds event times; without one they have no bound.
	clock connector.Clock
	// texts bounds what the expressions of a step make at a time.
	texts textBounds

	budgets []*budget
	files   map[*spillFile]struct{}
}

// meter counts the texts that are made of rows which come from a scratch file.
func (r *resources) meter() column.TextMeter {
	if r.worker == nil || r.memory == nil {
		return nil
	}
	return r.worker
}

// budget makes a budget for an operator. close gives it back.
func (r *resources) budget() *budget {
	b := &budget{memory: r.memory}
	r.budgets = append(r.budgets, b)
	return b
}

// spillFile is a scratch file that goes at the latest when its pipeline does.
type spillFile struct {
	ScratchFile
	owner *resources
}

// create makes a scratch file.
func (r *resources) create() (*spillFile, error) {
	if r.scratch == nil {
		return nil, errNoScratch
	}
	file, err := r.scratch.Create()
	if err != nil {
		return nil, fmt.Errorf("spill to disk: %w", err)
	}
	f := &spillFile{ScratchFile: file, owner: r}
	if r.files == nil {
		r.files = map[*spillFile]struct{}{}
	}
	r.files[f] = struct{}{}
	return f, nil
}

// Write appends, unless the run was ended.
func (f *spillFile) Write(p []byte) (int, error) {
	if err := f.owner.worker.beat(); err != nil {
		return 0, err
	}
	return f.ScratchFile.Write(p) //nolint:wrapcheck // it is what it wraps
}

// ReadAt reads, unless the run was ended.
func (f *spillFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.owner.worker.beat(); err != nil {
		return 0, err
	}
	return f.ScratchFile.ReadAt(p, off) //nolint:wrapcheck // io.EOF must stay what it is
}

// Close removes the file.
func (f *spillFile) Close() error {
	delete(f.owner.files, f)
	if err := f.ScratchFile.Close(); err != nil {
		return fmt.Errorf("remove a spill file: %w", err)
	}
	return nil
}

// close gives the memory back and removes the files. It is safe twice.
func (r *resources) close() error {
	for _, b := range r.budgets {
		b.release()
	}
	r.budgets = nil
	var errs []error
	for f := range r.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
