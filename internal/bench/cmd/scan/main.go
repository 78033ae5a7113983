// Command scan does the job of one workload as a program written by hand for nothing else: it knows the order of the
// fields, looks at each byte once, and keeps nothing but the sums. It is the mark of what the machine allows. It
// understands no other data than that of the workloads.
//
//	scan -workers 2 -out OUT w1 FILE | w2 FILE | w3 PRODUCTION ORDERS
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	workers := flag.Int("workers", 1, "how many goroutines read a part of the file each")
	out := flag.String("out", "", "`FILE` for the result")
	flag.Parse()
	if err := run(*workers, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "scan:", err)
		os.Exit(1)
	}
}

func run(workers int, out string, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "w1":
		return perMinute(args[1], out, workers, jsonReading)
	case len(args) == 2 && args[0] == "w2":
		return perMinute(args[1], out, workers, csvReading)
	case len(args) == 3 && args[0] == "w3":
		return perProduct(args[1], args[2], out, workers)
	}
	return errors.New("give w1 FILE, w2 FILE or w3 PRODUCTION ORDERS")
}
