// Package pgembed is the embedded default of the control plane: a private PostgreSQL in its data directory, for trying
// Outfeed out and for small plants.
//
// It runs the server and says where it is. It holds no SQL: who uses it makes roles and the database.
package pgembed

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/outfeed/outfeed/internal/pgserver"
)

// The roles and the database that Addresses name.
const (
	OwnerRole = "outfeed_owner"
	AppRole   = "outfeed_app"
	Database  = "outfeed"
)

// Addresses are the URLs of the private PostgreSQL for each of its roles.
type Addresses struct {
	// Superuser is for making the roles and the database (in the database "postgres").
	Superuser string
	// Owner is for migrating, App for serving.
	Owner, App string
}

// Embedded is a private PostgreSQL.
type Embedded struct{ server *pgserver.Server }

// New finds the binaries; it starts nothing. The server's files go to the folder postgres in the data directory.
func New(dataDir string, log *slog.Logger) (*Embedded, error) {
	s, err := pgserver.New(pgserver.Settings{
		Dir: filepath.Join(dataDir, "postgres"),
		Parameters: map[string]string{
			"max_connections":                     "60",
			"shared_buffers":                      "128MB",
			"wal_compression":                     "on",
			"checkpoint_timeout":                  "15min",
			"idle_in_transaction_session_timeout": "60s",
			"log_line_prefix":                     "%m [%p] %u@%d ",
		},
		Logger: log,
	})
	if err != nil {
		return nil, err
	}
	return &Embedded{server: s}, nil
}

// Addresses are where the server will be.
func (e *Embedded) Addresses() Addresses {
	return Addresses{
		Superuser: e.server.URL(pgserver.Superuser, "postgres"),
		Owner:     e.server.URL(OwnerRole, Database),
		App:       e.server.URL(AppRole, Database),
	}
}

// Run starts the server, calls ready once it accepts connections, and keeps it running until ctx ends.
func (e *Embedded) Run(ctx context.Context, ready func()) error { return e.server.Run(ctx, ready) }
