// Package e2e runs the real programs against a real database and a real broker, and kills them. Faults are tested in the
// files faults_*_test.go, shortly by make test and at length by make faults; the other tests have the build tag e2e and
// are run by make e2e.
package e2e
