package rollout

import (
	"context"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	go Decide(context.Background(), nil)
	time.Sleep(time.Second) // want "sleep"
}
