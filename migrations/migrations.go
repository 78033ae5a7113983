// Package migrations holds the schema of the control plane as numbered SQL files in goose's form.
//
// They run in their order, once each, as the role that owns the database, and never change once released: a change is
// a new file. There is no way down, because what a released version wrote is not thrown away. The package holds text
// only and opens no connection.
package migrations

import "embed"

// Files are the migrations, named NNNN_name.sql.
//
//go:embed *.sql
var Files embed.FS

// Application is the role that holds every right that the control plane has while it serves. Migrations make it.
const Application = "outfeed_app"
