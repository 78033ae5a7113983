package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/secret"
)

// Prepare makes what Migrate needs on a server that belongs to this program: the owner's role, which may make roles and
// is no superuser, and a database of its own. What is there already stays; superURL is for a superuser and a database
// that exists. An operator's own server is prepared by the operator instead.
func Prepare(ctx context.Context, superURL secret.String, owner, database string) (err error) {
	c, err := pgx.Connect(ctx, superURL.Reveal())
	if err != nil {
		return fmt.Errorf("reach the database server as its superuser: %w", unreachable(err))
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	for _, s := range []struct{ name, asked, statement string }{
		{owner, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", "CREATE ROLE " + quoted(owner) + " LOGIN CREATEROLE"},
		{database, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", "CREATE DATABASE " + quoted(database) + " OWNER " + quoted(owner)},
	} {
		var there bool
		if err := c.QueryRow(ctx, s.asked, s.name).Scan(&there); err != nil {
			return fmt.Errorf("look at the database server: %w", err)
		}
		if there {
			continue
		}
		if _, err := c.Exec(ctx, s.statement); err != nil {
			return fmt.Errorf("prepare the database server: %w", err)
		}
	}
	return nil
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }
