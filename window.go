package spillway

import "time"

// Until reports whether a moment is within the window, and when the window ends. A window whose time zone is
// not known on this machine is taken in UTC: a freeze at the wrong hour is better than none. (The zones are part of
// the program or of the machine: reading them is the only thing here that is not arithmetic.) Worked example:
// in "Fri 16:00 - Mon 08:00" Saturday noon is inside, and the end is Monday 08:00.
func (w Window) Until(now time.Time) (end time.Time, in bool) {
	if !w.Begin.IsZero() {
		return w.End, !now.Before(w.Begin) && now.Before(w.End)
	}
	zone, err := time.LoadLocation(w.Zone)
	if err != nil {
		zone = time.UTC
	}
	local := now.In(zone)
	minute := func(m Moment) int { return (int(m.Day)+6)%7*24*60 + m.Minute } // of a week that begins on Monday
	weeks := 0
	if minute(w.To) <= minute(w.From) {
		weeks = 1
	}
	// A window that spans the end of a week began in the week before.
	for back := range 2 {
		monday := local.Day() - (int(local.Weekday())+6)%7 - 7*back
		at := func(m Moment, weeks int) time.Time {
			return time.Date(local.Year(), local.Month(), monday+(int(m.Day)+6)%7+7*weeks, m.Minute/60, m.Minute%60, 0, 0, zone)
		}
		if begin, end := at(w.From, 0), at(w.To, weeks); !now.Before(begin) && now.Before(end) {
			return end, true
		}
	}
	return time.Time{}, false
}
