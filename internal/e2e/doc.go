// Package e2e runs the real binaries against a real database and a real broker, and kills them. Its tests have the
// build tag e2e and are run by `make e2e`, which builds the binaries first.
package e2e
