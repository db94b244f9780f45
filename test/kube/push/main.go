// Command push pushes static programs to a registry, each alone in an image: push NAME:TAG PROGRAM.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spillway-dev/spillway/test/kube/image"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: push NAME:TAG PROGRAM")
		os.Exit(2)
	}
	pinned, err := image.Push(context.Background(), os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "push:", err)
		os.Exit(1)
	}
	fmt.Println(pinned)
}
