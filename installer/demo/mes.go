package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/pgserver"
)

// mesRole owns the MES database; the plant writes as it and the agent reads as it.
const mesRole = "outfeed_mes"

func (d *demo) mes() (*pgserver.Server, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return pgserver.New(pgserver.Settings{Dir: d.path("mes"), Parameters: map[string]string{"max_connections": "20"}, Logger: log})
}

// mesURL is where the plant finds the MES database.
func (d *demo) mesURL() string {
	return "postgres:///mes?host=" + d.path("mes", "socket") + "&port=5432&user=" + mesRole
}

// startMES runs a PostgreSQL of the plant's own and makes its database.
func (d *demo) startMES(ctx context.Context) error {
	server, err := d.mes()
	if err != nil {
		return err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- server.Run(own, func() { close(ready) }) }()
	d.running.parts = append(d.running.parts, part{name: "the MES database", end: func() error {
		cancel()
		return <-ended
	}})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		return err
	}
	c, err := pgx.Connect(ctx, server.URL(pgserver.Superuser, "postgres"))
	if err != nil {
		return fmt.Errorf("connect to the MES database: %w", err)
	}
	defer c.Close(ctx) //nolint:errcheck // nothing is pending on it
	for _, sql := range []string{"CREATE ROLE " + mesRole + " LOGIN", "CREATE DATABASE mes OWNER " + mesRole} {
		if _, err := c.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}
