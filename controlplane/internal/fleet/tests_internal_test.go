package fleet

import (
	"testing"
	"testing/synctest"
)

// TestTurns lets one caller of a tenant in at a time, and tells the one that waited too long.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := turns{tenants: map[ID]*turn{}}
		first, err := all.take(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		other, err := all.take(t.Context(), "globex")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := all.take(t.Context(), "acme"); CodeOf(err) != Unavailable {
			t.Errorf("a second of the same tenant got %v", err)
		}
		got := make(chan error)
		go func() {
			done, err := all.take(t.Context(), "acme")
			if err == nil {
				done()
			}
			got <- err
		}()
		synctest.Wait()
		first()
		if err := <-got; err != nil {
			t.Errorf("who waited for the first got %v", err)
		}
		other()
		if len(all.tenants) != 0 {
			t.Errorf("%d tenants are remembered", len(all.tenants))
		}
	})
}
