// Package load starts goroutines.
package load

// Run starts three.
func Run() {
	// Run owns both; they end at once; nobody waits.
	go func() {}()
	go func() {}()

	go func() {}() // want "go-comment"
}
