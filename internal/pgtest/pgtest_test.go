package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/pgtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(m, func(ctx context.Context, url string) error {
		c, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer c.Close(ctx) //nolint:errcheck // the template is filled
		_, err = c.Exec(ctx, "CREATE TABLE seen (n int)")
		return err
	})
}

func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	for range 3 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			c, err := pgx.Connect(t.Context(), pgtest.New(t).OwnerURL())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(t.Context()) //nolint:errcheck // the test is over
			var n int
			if err := c.QueryRow(t.Context(), "INSERT INTO seen VALUES (1) RETURNING (SELECT count(*) FROM seen)").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n != 0 {
				t.Errorf("the database held %d rows of another test", n)
			}
		})
	}
}
