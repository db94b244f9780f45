// Package store may import the database, and nobody else's things.
package store

import (
	"database/sql"

	_ "go.yaml.in/yaml/v3" // want "owners"
	_ "modernc.org/sqlite"
)

// DB is the database.
type DB = sql.DB
