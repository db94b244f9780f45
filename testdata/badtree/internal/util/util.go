// Package util is a drawer.
package util // want "names"

// GetAnswer gets.
func GetAnswer() int { return 42 } // want "names"

// Getaway does not.
func Getaway() {}
