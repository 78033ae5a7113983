package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// bufferBytes is how much of the file a worker holds.
const bufferBytes = 256 << 10

// eachPart gives every worker an equal part of the file, cut where lines end. visit gets whole lines, each with its
// line end.
func eachPart(path string, workers int, visit func(worker int, lines []byte)) error {
	f, err := os.Open(path) //nolint:gosec // the person names it
	if err != nil {
		return fmt.Errorf("open the data: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open the data: %w", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		from, to := info.Size()*int64(w)/int64(workers), info.Size()*int64(w+1)/int64(workers)
		wg.Go(func() { errs[w] = readPart(f, from, to, func(lines []byte) { visit(w, lines) }) })
	}
	wg.Wait()
	return errors.Join(append(errs, f.Close())...)
}

// readPart visits the lines that begin in [from, to): a line belongs to the part that holds its first byte.
func readPart(f *os.File, from, to int64, visit func(lines []byte)) error {
	buf := make([]byte, bufferBytes)
	have, skip := 0, from > 0
	if skip {
		from-- // the byte before tells whether a line begins here
	}
	for from < to {
		n, err := f.ReadAt(buf[have:], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the data: %w", err)
		}
		text := buf[:have+n]
		from += int64(n)
		if skip {
			text, skip = text[bytes.IndexByte(text, '\n')+1:], false
		}
		end := bytes.LastIndexByte(text, '\n') + 1
		if over := from - to; over > 0 {
			// The last line of this part begins before to.
			last := len(text) - int(over)
			end = last + bytes.IndexByte(text[last-1:], '\n')
		}
		visit(text[:end])
		have = copy(buf, text[end:])
		if n == 0 {
			break
		}
	}
	return nil
}
