//go:build race

package engine

// raceOn says that the race detector runs, under which sync.Pool, and so package regexp, forgets at random.
const raceOn = true
