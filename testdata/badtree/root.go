// Package spillway breaks every rule once, for the test of the rules. It is parsed and never built.
package spillway

import (
	"fmt"

	_ "github.com/spillway-dev/spillway/internal/reconcile" // want "root-imports"
)

// Table is a constant in all but name, which is fine.
var Table = []string{"a", "b"}

// String shadows the table, which is fine too.
func String() string {
	Table := fmt.Sprint("c")
	Table = "d"
	return Table
}
