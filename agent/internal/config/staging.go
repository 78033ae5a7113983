package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Staging is how much may wait on this machine's disk for the control plane.
type Staging struct {
	// MaxBytes is how many bytes of insights may wait (OUTFEED_AGENT_STAGING_MAX_BYTES): see Bytes.
	MaxBytes Bytes `yaml:"max_bytes"`
	// MaxAge is how long an insight may wait (OUTFEED_AGENT_STAGING_MAX_AGE): 0 for ever. Older ones are dropped. Only the
	// time that the agent runs counts.
	MaxAge Age `yaml:"max_age"`
	// WhenFull is wait (the default) or drop_oldest: what a full outbox does (OUTFEED_AGENT_STAGING_WHEN_FULL).
	WhenFull string `yaml:"when_full"`
	// MinFree is how much of the disk the staging leaves free (OUTFEED_AGENT_STAGING_MIN_FREE).
	MinFree Bytes `yaml:"min_free"`
}

// The values of Staging.WhenFull.
const (
	WhenFullWait       = "wait"
	WhenFullDropOldest = "drop_oldest"
)

const (
	// minStaging is the least that the outbox works with: a few of the largest insights.
	minStaging Bytes = 16 << 20
	// minFree keeps what an agent needs to start and to acknowledge on a full disk.
	minFree Bytes = 1 << 20
	// minAge is the shortest time after which insights may be dropped.
	minAge = Age(time.Minute)
)

func defaultStaging() Staging {
	return Staging{MaxBytes: 1 << 30, WhenFull: WhenFullWait, MinFree: 64 << 20}
}

func (s *Staging) variables() map[string]func(string) error {
	return map[string]func(string) error{
		"OUTFEED_AGENT_STAGING_MAX_BYTES": func(v string) error { return s.MaxBytes.UnmarshalText([]byte(v)) },
		"OUTFEED_AGENT_STAGING_MAX_AGE":   func(v string) error { return s.MaxAge.UnmarshalText([]byte(v)) },
		"OUTFEED_AGENT_STAGING_WHEN_FULL": func(v string) error { s.WhenFull = v; return nil },
		"OUTFEED_AGENT_STAGING_MIN_FREE":  func(v string) error { return s.MinFree.UnmarshalText([]byte(v)) },
	}
}

func (s *Staging) validate() error {
	var wrong []error
	if s.MaxBytes < minStaging {
		wrong = append(wrong, fmt.Errorf("staging.max_bytes is %s, and the outbox needs at least %s", s.MaxBytes, minStaging))
	}
	if s.MinFree < minFree {
		wrong = append(wrong, fmt.Errorf("staging.min_free is %s: leave at least %s of the disk free", s.MinFree, minFree))
	}
	if s.MaxAge != 0 && s.MaxAge < minAge {
		wrong = append(wrong, fmt.Errorf("staging.max_age is %s: write at least %s, or 0 to drop nothing by its age", s.MaxAge, minAge))
	}
	if s.WhenFull != WhenFullWait && s.WhenFull != WhenFullDropOldest {
		wrong = append(wrong, fmt.Errorf("staging.when_full is %q: write wait, or drop_oldest to lose what has waited longest", s.WhenFull))
	}
	return errors.Join(wrong...)
}

// Age is a length of time, written as a whole number with a unit: 90s, 30m, 12h, 30d.
type Age time.Duration

// ageUnits are the units of an age, the longest first.
func ageUnits() []struct {
	suffix string
	unit   time.Duration
} {
	return []struct {
		suffix string
		unit   time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
}

// UnmarshalText reads an age.
func (a *Age) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if s == "0" {
		*a = 0
		return nil
	}
	for _, u := range ageUnits() {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		// A hundred years of each unit fit.
		if n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64); err == nil && n >= 0 && n <= int64(100*365*24*time.Hour/u.unit) {
			*a = Age(time.Duration(n) * u.unit)
			return nil
		}
	}
	return fmt.Errorf("%.40q is no length of time: write a whole number with a unit, such as 12h or 30d, or 0 for no limit", s)
}

// String writes an age as UnmarshalText reads it.
func (a Age) String() string {
	for _, u := range ageUnits() {
		if d := time.Duration(a); d != 0 && d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.suffix
		}
	}
	return "0"
}
