package stage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
)

// What follows reads the pages of a bbolt file without a memory map and without trust: nothing in the file can make it
// panic, run in circles or take more memory than the file is long. The layout is that of bbolt's internal/common, with
// the byte order of the machine, which is little-endian on all that the agent is built for.
const (
	pageHeaderBytes   = 16
	elementBytes      = 16
	bucketHeaderBytes = 16
	metaBytes         = 64
	boltMagic         = 0xED0CDAED
	boltVersion       = 2
	branchPage        = 0x01
	leafPage          = 0x02
	metaPage          = 0x04
	freelistPage      = 0x10
	bucketFlag        = 0x01
	noFreelist        = ^uint64(0)
	// maxDepth is far above that of any tree of 2^48 pages with two keys each.
	maxDepth = 64
)

// pageFile is a bbolt file to be read page by page.
type pageFile struct {
	file     *os.File
	size     int64
	pageSize int64
	// pages is how many the walk may see: those of the file, or fewer when the head says so.
	pages uint64
}

// head is what a meta page says.
type head struct {
	pageSize              int64
	root                  uint64
	freelist, pages, txid uint64
}

// openPages opens the file and gives its valid heads, the newest first. There may be none.
func openPages(path string) (*pageFile, []head, error) {
	f, err := os.Open(path) //nolint:gosec // a file of the agent's own directory
	if err != nil {
		return nil, nil, fmt.Errorf("open a staged file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open a staged file: %w", err), f.Close())
	}
	p := &pageFile{file: f, size: info.Size(), pageSize: int64(os.Getpagesize())}
	var heads []head
	if h, ok := p.head(0); ok {
		heads = append(heads, h)
		p.pageSize = h.pageSize
	}
	// The second one is where the page size says, which only itself may tell.
	for size := int64(1 << 10); size <= 1<<16; size <<= 1 {
		if h, ok := p.head(size); ok && h.pageSize == size && (len(heads) == 0 || size == p.pageSize) {
			heads = append(heads, h)
			p.pageSize = size
			break
		}
	}
	slices.SortFunc(heads, func(a, b head) int { return -bytes.Compare(number(a.txid), number(b.txid)) })
	p.pages = uint64(p.size / p.pageSize) //nolint:gosec // not negative
	return p, heads, nil
}

func (p *pageFile) close() error {
	if err := p.file.Close(); err != nil {
		return fmt.Errorf("close a staged file: %w", err)
	}
	return nil
}

// head reads the meta page at the offset.
func (p *pageFile) head(at int64) (head, bool) {
	b := make([]byte, pageHeaderBytes+metaBytes)
	if _, err := p.file.ReadAt(b, at); err != nil {
		return head{}, false
	}
	flags, m := binary.LittleEndian.Uint16(b[8:]), b[pageHeaderBytes:]
	sum := fnv.New64a()
	_, _ = sum.Write(m[:56])
	h := head{
		pageSize: int64(binary.LittleEndian.Uint32(m[8:])), root: binary.LittleEndian.Uint64(m[16:]),
		freelist: binary.LittleEndian.Uint64(m[32:]), pages: binary.LittleEndian.Uint64(m[40:]), txid: binary.LittleEndian.Uint64(m[48:]),
	}
	ok := flags == metaPage && binary.LittleEndian.Uint32(m) == boltMagic && binary.LittleEndian.Uint32(m[4:]) == boltVersion &&
		binary.LittleEndian.Uint64(m[56:]) == sum.Sum64() && h.pageSize >= 1<<10 && h.pageSize <= 1<<16 && h.pageSize&(h.pageSize-1) == 0
	return h, ok
}

// page is one page, with those that it flows over into.
type page struct {
	flags, count uint16
	// spans is how many pages of the file it takes.
	spans uint64
	// data begins with the header.
	data []byte
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// page reads the page of that number.
func (p *pageFile) page(id uint64) (page, error) {
	if id < 2 || id >= p.pages {
		return page{}, damaged("a page %d of %d", id, p.pages)
	}
	data := make([]byte, p.pageSize)
	at := int64(id) * p.pageSize //nolint:gosec // below the size of the file
	if _, err := p.file.ReadAt(data, at); err != nil {
		return page{}, readError(err, id)
	}
	pg := page{
		flags: binary.LittleEndian.Uint16(data[8:]), count: binary.LittleEndian.Uint16(data[10:]),
		spans: uint64(binary.LittleEndian.Uint32(data[12:])) + 1, data: data,
	}
	if got := binary.LittleEndian.Uint64(data); got != id {
		return page{}, damaged("page %d says that it is %d", id, got)
	}
	if pg.spans > p.pages-id {
		return page{}, damaged("page %d goes on for %d pages", id, pg.spans)
	}
	if pg.spans > maxFileBytes/uint64(p.pageSize) { //nolint:gosec // it is positive
		return page{}, damaged("page %d goes on for %d pages", id, pg.spans)
	}
	if pg.spans > 1 {
		pg.data = make([]byte, int64(pg.spans)*p.pageSize) //nolint:gosec // below the size of the file
		if _, err := p.file.ReadAt(pg.data, at); err != nil {
			return page{}, readError(err, id)
		}
	}
	return pg, nil
}

// readError says that the disk did not give a page: the end of the file or an unreadable sector is damage.
func readError(err error, id uint64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("page %d is behind the end of the file", id)
	}
	return fmt.Errorf("%w: page %d: %w", ErrDamaged, id, err)
}

// element is an entry of a page; child is for a branch page.
type element struct {
	key, value []byte
	child      uint64
	isBucket   bool
}

// elements checks and gives the entries of a leaf or branch page.
func (pg page) elements() ([]element, error) {
	if pg.flags != branchPage && pg.flags != leafPage {
		return nil, damaged("a page of the type %#x", pg.flags)
	}
	room := uint64(len(pg.data))
	if pageHeaderBytes+uint64(pg.count)*elementBytes > room {
		return nil, damaged("a page with %d entries", pg.count)
	}
	out := make([]element, pg.count)
	for i := range out {
		at := pageHeaderBytes + uint64(i)*elementBytes
		e := pg.data[at : at+elementBytes]
		word := func(n int) uint64 { return uint64(binary.LittleEndian.Uint32(e[n*4:])) }
		pos, keySize, valueSize := word(0), word(1), uint64(0)
		if pg.flags == branchPage {
			out[i].child = binary.LittleEndian.Uint64(e[8:])
		} else {
			pos, keySize, valueSize = word(1), word(2), word(3)
			out[i].isBucket = word(0) == bucketFlag
			if word(0) > bucketFlag {
				return nil, damaged("an entry of the type %#x", word(0))
			}
		}
		start := at + pos
		if start+keySize+valueSize > room || keySize == 0 {
			return nil, damaged("an entry of %d and %d bytes at %d", keySize, valueSize, start)
		}
		out[i].key = pg.data[start : start+keySize]
		out[i].value = pg.data[start+keySize : start+keySize+valueSize]
		if i > 0 && bytes.Compare(out[i-1].key, out[i].key) >= 0 {
			return nil, damaged("keys that are not in order")
		}
	}
	return out, nil
}

// walker goes through trees and remembers every page it has seen, so that it ends.
type walker struct {
	*pageFile
	seen map[uint64]struct{}
	// problem is told what is damaged; the walk goes on behind it.
	problem func(error)
}

func newWalker(p *pageFile, problem func(error)) *walker {
	return &walker{pageFile: p, seen: map[uint64]struct{}{}, problem: problem}
}

// take notes the pages of pg as seen.
func (w *walker) take(id uint64, pg page) bool {
	for i := range pg.spans {
		if _, twice := w.seen[id+i]; twice {
			w.problem(damaged("page %d is used twice", id+i))
			return false
		}
		w.seen[id+i] = struct{}{}
	}
	return true
}

// bucket is a tree's root page, or the page itself where it lies in the entry.
type bucket struct {
	root   uint64
	inline []byte
}

// parseBucket reads the value of a bucket's entry.
func parseBucket(value []byte) (bucket, error) {
	if len(value) < bucketHeaderBytes {
		return bucket{}, damaged("the entry of a bucket has %d bytes", len(value))
	}
	b := bucket{root: binary.LittleEndian.Uint64(value)}
	if b.root == 0 {
		b.inline = value[bucketHeaderBytes:]
		if len(b.inline) < pageHeaderBytes {
			return bucket{}, damaged("a bucket in an entry of %d bytes", len(value))
		}
	}
	return b, nil
}

// each calls fn for every entry of the bucket, in order.
func (w *walker) each(b bucket, fn func(e element)) {
	var last []byte
	if b.inline == nil {
		w.tree(b.root, nil, &last, maxDepth, fn)
		return
	}
	pg := page{flags: binary.LittleEndian.Uint16(b.inline[8:]), count: binary.LittleEndian.Uint16(b.inline[10:]), spans: 1, data: b.inline}
	if pg.flags != leafPage {
		w.problem(damaged("a bucket with a page of the type %#x", pg.flags))
		return
	}
	w.leaf(pg, nil, &last, fn)
}

// tree visits the page and what is below it. first is the key that the page above has for it, nil for a root; last is
// the last key that was seen.
func (w *walker) tree(id uint64, first []byte, last *[]byte, depth int, fn func(e element)) {
	pg, err := w.page(id)
	if err != nil {
		w.problem(err)
		return
	}
	if depth == 0 {
		w.problem(damaged("a tree without an end"))
		return
	}
	if !w.take(id, pg) {
		return
	}
	if pg.count == 0 && first != nil {
		w.problem(damaged("an empty page %d", id))
		return
	}
	if pg.flags == leafPage {
		w.leaf(pg, first, last, fn)
		return
	}
	children, err := pg.elements()
	if err != nil {
		w.problem(err)
		return
	}
	if len(children) == 0 {
		w.problem(damaged("an empty page %d", id))
	}
	for _, c := range children {
		if bytes.Compare(c.key, first) < 0 || *last != nil && bytes.Compare(*last, c.key) >= 0 {
			w.problem(damaged("page %d leads to keys that are not in order", id))
		}
		w.tree(c.child, c.key, last, depth-1, fn)
	}
}

func (w *walker) leaf(pg page, first []byte, last *[]byte, fn func(e element)) {
	list, err := pg.elements()
	if err != nil {
		w.problem(err)
		return
	}
	for _, e := range list {
		if bytes.Compare(e.key, first) < 0 || *last != nil && bytes.Compare(*last, e.key) >= 0 {
			w.problem(damaged("keys that are not in order"))
			return
		}
		*last = e.key
		fn(e)
	}
}

// checkAll checks every page that the head leads to, and that every other one is free.
func (p *pageFile) checkAll(h head) error {
	var first error
	w := newWalker(p, func(err error) {
		if first == nil {
			first = err
		}
	})
	if h.pages > p.pages {
		return damaged("the file has %d pages and should have %d", p.pages, h.pages)
	}
	all := *p
	all.pages = h.pages
	w.pageFile = &all
	w.everything(bucket{root: h.root}, maxDepth)
	if h.freelist == noFreelist {
		return first
	}
	free, err := w.freePages(h.freelist)
	if first != nil || err != nil {
		return cmpError(first, err)
	}
	if got := uint64(len(w.seen)) + free + 2; got != h.pages {
		return damaged("%d of %d pages are in use or free", got, h.pages)
	}
	return nil
}

func cmpError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// everything walks a bucket and those in it.
func (w *walker) everything(b bucket, depth int) {
	w.each(b, func(e element) {
		if !e.isBucket {
			return
		}
		child, err := parseBucket(e.value)
		if err == nil && depth == 0 {
			err = damaged("buckets without an end")
		}
		if err != nil {
			w.problem(err)
			return
		}
		w.everything(child, depth-1)
	})
}

// freePages checks the list of free pages and counts them.
func (w *walker) freePages(id uint64) (uint64, error) {
	pg, err := w.page(id)
	if err != nil {
		return 0, err
	}
	if pg.flags != freelistPage {
		return 0, damaged("a list of free pages of the type %#x", pg.flags)
	}
	if !w.take(id, pg) {
		return 0, damaged("the list of free pages is in use")
	}
	ids, count := pg.data[pageHeaderBytes:], uint64(pg.count)
	if count == 0xFFFF && len(ids) >= 8 {
		count, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return 0, damaged("%d free pages", count)
	}
	free := make(map[uint64]struct{}, count)
	for i := range count {
		id := binary.LittleEndian.Uint64(ids[i*8:])
		_, used := w.seen[id]
		_, twice := free[id]
		if id < 2 || id >= w.pages || used || twice {
			return 0, damaged("page %d is not free", id)
		}
		free[id] = struct{}{}
	}
	return count, nil
}
