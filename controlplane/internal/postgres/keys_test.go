package postgres_test

import (
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/postgres"
)

// TestInstallationKeys has several processes record keys of their own at once: the keys of one count, all of them, and all
// are told the same. Only who names a key that is recorded replaces it.
func TestInstallationKeys(t *testing.T) {
	t.Parallel()
	st := opened(t, migrated(t))
	if keys, err := st.InstallationKeys(t.Context()); err != nil || len(keys) != 0 {
		t.Fatalf("at first %v are recorded, %v", keys, err)
	}
	of := func(digit string) map[string]string {
		fingerprint := strings.Repeat(digit, 64)
		return map[string]string{"master": fingerprint, "identity": fingerprint, "bundle": fingerprint}
	}
	var wg sync.WaitGroup
	told, errs := make([]map[string]string, 8), make([]error, 8)
	for i := range told {
		wg.Go(func() { told[i], errs[i] = st.RecordKeys(t.Context(), of(strconv.Itoa(i)), nil) })
	}
	wg.Wait()
	first := told[0]
	if len(first) != 3 || first["master"] != first["identity"] || first["master"] != first["bundle"] {
		t.Errorf("recorded are the keys of several: %v", first)
	}
	for i := range told {
		if errs[i] != nil || !maps.Equal(told[i], first) {
			t.Errorf("%d is told %v, %v", i, told[i], errs[i])
		}
	}
	if now, err := st.RecordKeys(t.Context(), of("a"), map[string]string{"bundle": first["bundle"], "identity": strings.Repeat("f", 64)}); err != nil ||
		now["bundle"] != of("a")["bundle"] || now["identity"] != first["identity"] || now["master"] != first["master"] {
		t.Errorf("after replacing the bundle key: %v, %v", now, err)
	}
	keys, err := st.InstallationKeys(t.Context())
	if err != nil || len(keys) != 3 || keys[0].Name != "bundle" || keys[0].Recorded.Before(keys[1].Recorded) {
		t.Errorf("recorded are %+v, %v", keys, err)
	}
	if hang, err := st.HangOnKeys(t.Context()); err != nil || hang != (postgres.HangOnKeys{}) {
		t.Errorf("on an empty database hang %+v, %v", hang, err)
	}
}
