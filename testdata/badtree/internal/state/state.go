// Package state keeps its state where everybody can reach it.
package state

import (
	"errors"
	"log"
	"os"
	"regexp"
	"sync"

	"github.com/spillway-dev/spillway"
)

// ErrFine is a sentinel.
var ErrFine = errors.New("fine")

var word = regexp.MustCompile(`\w+`)

var (
	empty  string                  // want "globals"
	filled = map[string]int{}      // the line that fills it is at fault
	cache  = make(map[string]bool) // want "globals"
	mu     = sync.Mutex{}          // want "globals"
	count  = 0
	config = &struct{ n int }{} // want "globals"
	// mutable: the test of the rules needs an exception.
	seen = make(map[string]bool)
)

var _ error = &fault{}

type fault struct{ text string }

func (f *fault) Error() string { return f.text }

func init() { // want "init"
	filled["a"]++        // want "globals"
	count = 1            // want "globals"
	spillway.Table = nil // want "globals"
	seen = nil           // want "globals"
	for count := range 3 {
		count++
	}
	if cache == nil || empty == "" || word == nil || config == nil {
		mu.Lock()
		log.Fatalln("no") // want "exits"
	}
	os.Exit(1) // want "exits"
}
