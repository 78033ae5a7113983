package engine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"unsafe"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// A spilled file is a sequence of blocks. A block is a head (the rows, and for each column the words of its null bitmap
// and the bytes of its text), the CRC32C of the head, the columns one after the other as they lie in memory (nulls,
// values, text), and the CRC32C of those. It is read by the process that wrote it, so byte order is the machine's. A block
// ends at spillRows rows or at batchText bytes of text, whichever comes first, but has one row at least: whoever reads a
// file holds one block of it.
const (
	spillRows    = 4096
	spillText    = 1 << 16
	spillBuffer  = 1 << 16
	spillMaxRows = 1 << 20
)

// errSpillDamaged says that a scratch file does not hold what was written.
var errSpillDamaged = errors.New("what was spilled to disk came back damaged; check the disk of the data directory, then run the flow again")

// rawBytes is a slice's memory.
func rawBytes[T int64 | float64 | uint64 | int32 | uint32 | bool | column.Str](s []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(one))) //nolint:gosec // the types have no pointers, and the slice keeps its memory alive
}

// spillWriter writes rows to a scratch file, which it makes when there is a first block to write.
type spillWriter struct {
	res   *resources
	file  *spillFile
	cols  []column.Column
	n     int
	buf   []byte
	table *crc32.Table
	// rows counts all that were appended, bytes what was written; largest is the bytes of the largest block.
	rows, bytes, largest int64
}

func newSpillWriter(res *resources, types []expr.Type) *spillWriter {
	w := &spillWriter{res: res, cols: make([]column.Column, len(types)), table: crc32.MakeTable(crc32.Castagnoli)}
	for i, t := range types {
		w.cols[i].Type = t
	}
	return w
}

// append adds the rows sel of the columns.
func (w *spillWriter) append(cols []*column.Column, sel []int32) error {
	for len(sel) > 0 {
		// What waits has less than spillText.
		part := sel[:min(len(sel), spillRows-w.n)]
		part = part[:fitText(cols, part, batchText-spillText)]
		sel = sel[len(part):]
		for i := range w.cols {
			if err := w.cols[i].AppendRows(cols[i], part); err != nil {
				return fmt.Errorf("spill to disk: %w", err)
			}
		}
		w.n += len(part)
		w.rows += int64(len(part))
		if w.n == spillRows || ownText(w.cols) >= spillText {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush makes a block of the rows that wait.
func (w *spillWriter) flush() error {
	if w.n == 0 {
		return nil
	}
	head := len(w.buf)
	w.buf = binary.NativeEndian.AppendUint32(w.buf, uint32(w.n)) //nolint:gosec // at most spillRows
	for i := range w.cols {
		c := &w.cols[i]
		c.Nulls = c.Nulls[:min(len(c.Nulls), (w.n+63)/64)]
		w.buf = binary.NativeEndian.AppendUint32(w.buf, uint32(len(c.Nulls))) //nolint:gosec // as many as the rows
		w.buf = binary.NativeEndian.AppendUint32(w.buf, uint32(len(c.Data)))  //nolint:gosec // at most column.MaxData
	}
	w.buf = binary.NativeEndian.AppendUint32(w.buf, crc32.Checksum(w.buf[head:], w.table))
	size, sum := len(w.buf)-head, uint32(0)
	for i := range w.cols {
		c := &w.cols[i]
		for _, part := range [][]byte{rawBytes(c.Nulls), values(c, w.n), c.Data} {
			size, sum = size+len(part), crc32.Update(sum, w.table, part)
			if err := w.put(part); err != nil {
				return err
			}
		}
	}
	emptyColumns(w.cols)
	w.buf = binary.NativeEndian.AppendUint32(w.buf, sum)
	w.n, w.largest = 0, max(w.largest, int64(size))
	if len(w.buf) < spillBuffer {
		return nil
	}
	return w.write()
}

// values is the memory of the first n values of a column.
func values(c *column.Column, n int) []byte {
	switch storageOf(c.Type) {
	case storeBool:
		return rawBytes(c.Bools[:n])
	case storeInt:
		return rawBytes(c.Ints[:n])
	case storeFloat:
		return rawBytes(c.Floats[:n])
	case storeText:
		return rawBytes(c.Strs[:n])
	case storeNone:
	}
	return nil
}

// put adds a part of a block, a long one without another copy of it.
func (w *spillWriter) put(part []byte) error {
	if len(part) <= 2*batchText {
		w.buf = append(w.buf, part...)
		return nil
	}
	if err := w.write(); err != nil {
		return err
	}
	return w.writePart(part)
}

func (w *spillWriter) write() error {
	err := w.writePart(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *spillWriter) writePart(part []byte) (err error) {
	if w.file == nil {
		if w.file, err = w.res.create(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(part)
	w.bytes += int64(n)
	if err != nil {
		return fmt.Errorf("spill to disk: %w", err)
	}
	return nil
}

// finish writes what waits and lets go of the memory.
func (w *spillWriter) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	if len(w.buf) > 0 {
		if err := w.write(); err != nil {
			return err
		}
	}
	w.buf = nil
	for i := range w.cols {
		w.cols[i] = column.Column{Type: w.cols[i].Type}
	}
	return nil
}

// remove removes the file. It is safe twice.
func (w *spillWriter) remove() error {
	if w == nil || w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.Close()
}

// reader reads the finished file from its beginning. Several readers of a file do not disturb each other.
func (w *spillWriter) reader() *spillReader {
	types := make([]expr.Type, len(w.cols))
	for i := range types {
		types[i] = w.cols[i].Type
	}
	if w.file == nil {
		return newSpillReader(nil, 0, types)
	}
	return newSpillReader(w.file, w.bytes, types)
}

// spillReader reads the blocks of a file. Their memory is used again by the next one.
type spillReader struct {
	in    *bufio.Reader
	batch column.Batch
	head  []byte
	sum   uint32
	table *crc32.Table
	// left is the bytes that were not read yet.
	left int64
}

func newSpillReader(file io.ReaderAt, size int64, types []expr.Type) *spillReader {
	r := &spillReader{table: crc32.MakeTable(crc32.Castagnoli), left: size}
	if file != nil {
		r.in = bufio.NewReaderSize(io.NewSectionReader(file, 0, size), spillBuffer)
	}
	r.batch.Cols = make([]column.Column, len(types))
	for i, t := range types {
		r.batch.Cols[i].Type = t
	}
	r.head = make([]byte, 8+8*len(types))
	return r
}

// next gives the next rows, io.EOF behind the last ones.
func (r *spillReader) next() (*column.Batch, error) {
	if r.left == 0 {
		return nil, io.EOF
	}
	if err := r.read(r.head); err != nil {
		return nil, err
	}
	end := len(r.head) - 4
	rows := binary.NativeEndian.Uint32(r.head)
	if crc32.Checksum(r.head[:end], r.table) != binary.NativeEndian.Uint32(r.head[end:]) || rows > spillMaxRows {
		return nil, errSpillDamaged
	}
	r.batch.Len, r.sum = int(rows), 0
	for i := range r.batch.Cols {
		sizes := r.head[4+8*i:]
		if err := r.column(&r.batch.Cols[i], binary.NativeEndian.Uint32(sizes), binary.NativeEndian.Uint32(sizes[4:])); err != nil {
			return nil, err
		}
	}
	want := r.sum
	var tail [4]byte
	if err := r.read(tail[:]); err != nil {
		return nil, err
	}
	if binary.NativeEndian.Uint32(tail[:]) != want {
		return nil, errSpillDamaged
	}
	return &r.batch, nil
}

// column reads one column of the block.
func (r *spillReader) column(c *column.Column, nulls, text uint32) error {
	n := r.batch.Len
	if int64(nulls)*8 > r.left || int64(text) > r.left || int64(n) > r.left || text > math.MaxInt32 || int(nulls) > (n+63)/64 {
		return errSpillDamaged
	}
	c.Reset()
	c.Nulls = resize(c.Nulls, int(nulls))
	if int(text) > cap(c.Data) || cap(c.Data) > 2*batchText {
		c.Data = make([]byte, text, text+min(text/8, spillText)) // a long text is rare, and has little beside it
	}
	c.Data = c.Data[:text]
	makeRoom(c, n)
	for _, part := range [][]byte{rawBytes(c.Nulls), values(c, n), c.Data} {
		if err := r.read(part); err != nil {
			return err
		}
		r.sum = crc32.Update(r.sum, r.table, part)
	}
	return checkValues(c)
}

// makeRoom makes a column n values long.
func makeRoom(c *column.Column, n int) {
	switch storageOf(c.Type) {
	case storeBool:
		c.Bools = resize(c.Bools, n)
	case storeInt:
		c.Ints = resize(c.Ints, n)
	case storeFloat:
		c.Floats = resize(c.Floats, n)
	case storeText:
		c.Strs = resize(c.Strs, n)
	case storeNone:
	}
}

// checkValues refuses what no column holds: a bool that is neither, a text outside of the data.
func checkValues(c *column.Column) error {
	for _, b := range rawBytes(c.Bools) {
		// Any other byte in a bool would be beyond what the language allows.
		if b > 1 {
			return errSpillDamaged
		}
	}
	for _, s := range c.Strs {
		if uint64(s.Off)+uint64(s.Len) > uint64(len(c.Data)) {
			return errSpillDamaged
		}
	}
	return nil
}

func (r *spillReader) read(dst []byte) error {
	if int64(len(dst)) > r.left {
		return errSpillDamaged
	}
	if _, err := io.ReadFull(r.in, dst); err != nil {
		return fmt.Errorf("read what was spilled: %w", err)
	}
	r.left -= int64(len(dst))
	return nil
}
