// Package supervisor makes the running flows equal to the desired ones: it checks, starts, restarts and stops them,
// keeps a failing flow away from the others, and reports on each.
//
// It knows no concrete connector, no staging and no tunnel: connectors come through Settings.Connector, durability
// through Staging. A Supervisor may be used by any number of goroutines. Run owns a goroutine per flow and waits for all.
package supervisor
