package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is an amount of memory or of disk space, written as a whole number with a unit: 512MiB, 2GB.
type Bytes int64

const (
	// DefaultMemoryLimit is what the agent uses at most when nothing is set.
	DefaultMemoryLimit Bytes = 128 << 20
	// MinMemoryLimit is the least that the agent works with.
	MinMemoryLimit Bytes = 48 << 20
)

// units are what a number of bytes is multiplied by. KB, MB and GB mean the same as KiB, MiB and GiB,
// because memory comes in powers of two.
func units() map[string]int64 {
	return map[string]int64{
		"b": 1, "kb": 1 << 10, "kib": 1 << 10, "k": 1 << 10, "mb": 1 << 20, "mib": 1 << 20, "m": 1 << 20,
		"gb": 1 << 30, "gib": 1 << 30, "g": 1 << 30,
	}
}

// UnmarshalText reads an amount with its unit.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	digits := strings.TrimRight(s, "kKmMgGiIbB ")
	unit, known := units()[strings.ToLower(strings.TrimSpace(s[len(digits):]))]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%.40q is no amount of bytes: write a whole number with a unit, such as 128MB or 2GB", s)
	}
	*b = Bytes(n * unit)
	return nil
}

// Validate refuses a limit with which the agent could not work.
func (b Bytes) Validate() error {
	if b < MinMemoryLimit {
		return fmt.Errorf("memory_limit is %d bytes, and the agent needs at least %dMB", int64(b), int64(MinMemoryLimit)>>20)
	}
	return nil
}

// String writes an amount as UnmarshalText reads it.
func (b Bytes) String() string {
	if b%(1<<20) == 0 {
		return strconv.FormatInt(int64(b)>>20, 10) + "MB"
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// Set and Type make it a flag of the command line.
func (b *Bytes) Set(text string) error {
	if err := b.UnmarshalText([]byte(text)); err != nil {
		return err
	}
	return b.Validate()
}

// Type is how the flag's help names the value.
func (*Bytes) Type() string { return "SIZE" }
