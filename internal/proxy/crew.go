package proxy

import (
	"net/http"
	"sync"
	"sync/atomic"
)

// maxResting is how many goroutines of a crew wait for a request when there is none.
const maxResting = 128

// crew are goroutines that answer requests for those to whom they came. Make it with newCrew.
type crew struct {
	work    chan *task
	resting atomic.Int32
	off     chan struct{} // closed when nobody is to rest any more
	tasks   sync.Pool
}

// task is one request that somebody else answers.
type task struct {
	listener *listener
	w        http.ResponseWriter
	r        *http.Request
	done     chan any // what the answer ended with: nil, or the value of a panic
}

func newCrew(off chan struct{}) *crew {
	c := &crew{work: make(chan *task), off: off}
	c.tasks.New = func() any { return &task{done: make(chan any, 1)} }
	return c
}

// serve has a request answered, and waits for that.
func (c *crew) serve(l *listener, w http.ResponseWriter, r *http.Request) {
	t := c.tasks.Get().(*task)
	t.listener, t.w, t.r = l, w, r
	select {
	case c.work <- t:
	default:
		// Owned by the crew; ends when there is no work and enough others rest, or when the drain is over.
		go c.member(t)
	}
	ended := <-t.done
	t.listener, t.w, t.r = nil, nil, nil
	c.tasks.Put(t)
	if ended != nil {
		panic(ended)
	}
}

func (c *crew) member(t *task) {
	for t != nil {
		t.run()
		if c.resting.Add(1) > maxResting {
			c.resting.Add(-1)
			return
		}
		select {
		case t = <-c.work:
		case <-c.off:
			t = nil
		}
		c.resting.Add(-1)
	}
}

func (t *task) run() {
	defer func() { t.done <- recover() }()
	t.listener.serve(t.w, t.r)
}
