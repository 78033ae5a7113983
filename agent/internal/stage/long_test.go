package stage_test

import "flag"

var long = flag.Bool("long", false, "also run the faults at the length of make faults")
