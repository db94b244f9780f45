package bare // want "docs"

// Good has a comment.
type Good struct{}

func (Good) Method() {} // want "docs"

type Bad int // want "docs"

type hidden int

func (hidden) Method() {}

// The constants share one.
const (
	One = 1
	Two = 2
)

const Three = 3 // a comment behind it will do

var (
	Four = 4 // behind it
	// Five has its own.
	Five = 5
)
