package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/backoff"
)

// mes keeps the database's work orders as the plant has them.
type mes struct {
	url string
	log *slog.Logger

	mu sync.Mutex // over pending
	// pending are the orders that changed since they were last written, by id.
	pending map[string]order
	wake    chan struct{}
}

func newMES(url string, log *slog.Logger) *mes {
	return &mes{url: url, log: log, pending: make(map[string]order), wake: make(chan struct{}, 1)}
}

// changed notes an order that is new or changed.
func (m *mes) changed(o order) {
	m.mu.Lock()
	m.pending[o.ID] = o
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// prepare makes the schema and writes the first orders.
func (m *mes) prepare(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, m.url)
	if err != nil {
		return fmt.Errorf("connect to the MES database: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is pending on it
	const schema = `
		CREATE SCHEMA IF NOT EXISTS mes;
		CREATE TABLE IF NOT EXISTS mes.work_orders (
			order_id text PRIMARY KEY,
			product text NOT NULL,
			machine text NOT NULL,
			quantity_planned int NOT NULL CHECK (quantity_planned > 0),
			due timestamptz NOT NULL,
			status text NOT NULL CHECK (status IN ('PLANNED', 'RUNNING', 'DONE'))
		)`
	if _, err := conn.Exec(ctx, schema); err != nil {
		return fmt.Errorf("make the MES schema: %w", err)
	}
	return m.write(ctx, conn)
}

// run writes what changes until ctx ends. A database that is away is tried again.
func (m *mes) run(ctx context.Context) {
	tries := backoff.Backoff{Max: 10 * time.Second}
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
		for {
			err := m.writeOnce(ctx)
			if err == nil {
				tries.Reset()
				break
			}
			if ctx.Err() != nil {
				return
			}
			m.log.WarnContext(ctx, "the work orders could not be written and are tried again", "error", err)
			if tries.Wait(ctx) != nil {
				return
			}
		}
	}
}

func (m *mes) writeOnce(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, m.url)
	if err != nil {
		return fmt.Errorf("connect to the MES database: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is pending on it
	return m.write(ctx, conn)
}

// write brings the pending orders into the database, all or none.
func (m *mes) write(ctx context.Context, conn *pgx.Conn) error {
	m.mu.Lock()
	orders := maps.Clone(m.pending)
	m.mu.Unlock()
	batch := &pgx.Batch{}
	for _, id := range slices.Sorted(maps.Keys(orders)) {
		o := orders[id]
		batch.Queue(`
			INSERT INTO mes.work_orders (order_id, product, machine, quantity_planned, due, status)
			VALUES (@id, @product, @machine, @planned, @due, @status)
			ON CONFLICT (order_id) DO UPDATE SET product = excluded.product, machine = excluded.machine,
				quantity_planned = excluded.quantity_planned, due = excluded.due, status = excluded.status`,
			pgx.NamedArgs{"id": o.ID, "product": o.Product, "machine": o.Machine, "planned": o.Planned, "due": o.Due, "status": o.Status})
	}
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("write the work orders: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, o := range orders {
		if m.pending[id] == o {
			delete(m.pending, id)
		}
	}
	return nil
}
