package spillway_test

import (
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestCollide(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{":6379", ":6379", true}, {":6379", ":6380", false}, {":6379", "10.0.0.1:6379", true}, {"0.0.0.0:6379", "10.0.0.1:6379", true},
		{"[::]:6379", "10.0.0.1:6379", true}, {"10.0.0.1:6379", "10.0.0.2:6379", false}, {"10.0.0.1:6379", "[::ffff:10.0.0.1]:6379", true},
		{"[::1]:6379", "[::1]:6379", true}, {"[::1]:6379", "127.0.0.1:6379", false}, {"6379", "6379", false},
	} {
		if got := spillway.Collide(c.a, c.b); got != c.want || spillway.Collide(c.b, c.a) != got {
			t.Errorf("%s and %s collide: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}
