package spillway_test

import (
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

func TestWindow_Until(t *testing.T) {
	weekend := spillway.Window{From: spillway.Moment{Day: time.Friday, Minute: 16 * 60}, To: spillway.Moment{Day: time.Monday, Minute: 8 * 60}}
	berlin := weekend
	berlin.Zone = "Europe/Berlin"
	night := spillway.Window{From: spillway.Moment{Day: time.Tuesday, Minute: 1 * 60}, To: spillway.Moment{Day: time.Tuesday, Minute: 2 * 60}}
	once := spillway.Window{Begin: time.Date(2026, 12, 24, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 12, 27, 0, 0, 0, 0, time.UTC)}
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC) } // the 21st is a Saturday
	tests := []struct {
		name   string
		window spillway.Window
		now    time.Time
		end    time.Time // zero = outside
	}{
		{"before it begins", weekend, at(20, 15, 59), time.Time{}},
		{"its first minute", weekend, at(20, 16, 0), at(23, 8, 0)},
		{"in the middle", weekend, at(21, 12, 0), at(23, 8, 0)},
		{"in the next week", weekend, at(23, 7, 59), at(23, 8, 0)},
		{"at its end", weekend, at(23, 8, 0), time.Time{}},
		{"in another zone, an hour earlier", berlin, at(20, 15, 0), at(23, 7, 0)},
		{"within a day", night, at(24, 1, 30), at(24, 2, 0)},
		{"within a day, outside", night, at(25, 1, 30), time.Time{}},
		{"in the hour that does not exist", spillway.Window{From: spillway.Moment{Day: time.Sunday, Minute: 2 * 60}, To: spillway.Moment{Day: time.Sunday, Minute: 3 * 60}, Zone: "Europe/Berlin"}, time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC), time.Time{}},
		{"once", once, time.Date(2026, 12, 25, 0, 0, 0, 0, time.UTC), once.End},
		{"once, a year later", once, time.Date(2027, 12, 25, 0, 0, 0, 0, time.UTC), time.Time{}},
		{"over the end of winter time", berlin, time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC), time.Date(2026, 3, 30, 6, 0, 0, 0, time.UTC)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			end, in := tt.window.Until(tt.now)
			if in == tt.end.IsZero() || in && !end.Equal(tt.end) {
				t.Errorf("Until(%s) = %s, %v; want %s", tt.now, end, in, tt.end)
			}
		})
	}
}
