// Command chatter is what the tests deploy to read what it writes: fifty lines a second, each with the life that it is of
// and its number in that, and then its end.
package main

import (
	"fmt"
	"os"
	"time"
)

// lines are how many it writes in a life.
const lines = 300

func main() {
	life := time.Now().UnixNano()
	for n := range lines {
		fmt.Println(life, n)
		<-time.After(20 * time.Millisecond)
	}
	fmt.Println(life, "ends")
	os.Exit(1)
}
