// Command flowdoc writes the reference of the flow language into the pages named on its command line. `make generate`
// runs it; a test of flowdef holds the page against the same text.
package main

import (
	"fmt"
	"os"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func main() {
	for _, name := range os.Args[1:] {
		if err := write(name); err != nil {
			fmt.Fprintln(os.Stderr, "flowdoc:", err)
			os.Exit(1)
		}
	}
}

func write(name string) error {
	page, err := os.ReadFile(name) //nolint:gosec // the page that make names
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	page, err = flowdef.Document(page)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := os.WriteFile(name, page, 0o644); err != nil { //nolint:gosec // documentation, for everybody
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}
