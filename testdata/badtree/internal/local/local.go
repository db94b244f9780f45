// Package local reaches for its neighbours.
package local

import (
	_ "database/sql"        // want "owners"
	_ "example.com/unheard" // want "owners"

	"github.com/spillway-dev/spillway/internal/store" // want "adapters"
)

// Version is a version.
const Version = "1"

// DB is somebody else's.
type DB = store.DB
