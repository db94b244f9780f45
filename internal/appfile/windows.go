package appfile

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	clockPart = `(([01][0-9]|2[0-3]):[0-5][0-9])`
	dayPart   = `(Mon|Tue|Wed|Thu|Fri|Sat|Sun)`
	datePart  = `([0-9]{4}-[0-9]{2}-[0-9]{2})`
	zonePart  = `( +([A-Za-z][A-Za-z0-9_+/-]*))?`
)

var (
	weekly     = regexp.MustCompile(`^` + dayPart + ` +` + clockPart + ` *- *` + dayPart + ` +` + clockPart + zonePart + `$`)
	once       = regexp.MustCompile(`^` + datePart + ` +` + clockPart + ` *- *` + datePart + ` +` + clockPart + zonePart + `$`)
	windowText = regexp.MustCompile(weekly.String() + `|` + once.String())
	weekdays   = [...]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"} // as time.Weekday counts them
)

// windowShape is a time in which no deploy begins.
func windowShape() textShape {
	return textShape{name: `a window like "Fri 16:00 - Mon 08:00 Europe/Berlin"`, pattern: windowText, problem: func(text string) (string, string) {
		if _, err := parseWindow(text); err != nil && windowText.MatchString(text) {
			return err.Error(), ""
		}
		return "", ""
	}}
}

// parseWindow reads a text that has the pattern of a window.
func parseWindow(text string) (spillway.Window, error) {
	if m := weekly.FindStringSubmatch(text); m != nil {
		w := spillway.Window{Text: text, From: moment(m[1], m[2]), To: moment(m[4], m[5]), Zone: m[8]}
		if w.From == w.To {
			return w, fmt.Errorf("%s ends when it begins", quote(text))
		}
		_, err := zone(w.Zone)
		return w, err
	}
	m := once.FindStringSubmatch(text)
	if m == nil {
		return spillway.Window{}, fmt.Errorf("%s is not a window", quote(text))
	}
	place, err := zone(m[8])
	if err != nil {
		return spillway.Window{}, err
	}
	begin, err := time.ParseInLocation("2006-01-02 15:04", m[1]+" "+m[2], place)
	if err != nil {
		return spillway.Window{}, fmt.Errorf("%s is not a date", m[1])
	}
	end, err := time.ParseInLocation("2006-01-02 15:04", m[4]+" "+m[5], place)
	switch {
	case err != nil:
		return spillway.Window{}, fmt.Errorf("%s is not a date", m[4])
	case !end.After(begin):
		return spillway.Window{}, fmt.Errorf("%s ends before it begins", quote(text))
	}
	return spillway.Window{Text: text, Begin: begin.UTC(), End: end.UTC()}, nil
}

// zone finds a time zone. "Local" would be another one on each machine.
func zone(name string) (*time.Location, error) {
	place, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("there is no time zone %s: names are those of the tz database, like Europe/Berlin or UTC", quote(name))
	}
	return place, nil
}

// moment reads a day and a time of day that have their patterns.
func moment(day, clock string) spillway.Moment {
	hour, _ := strconv.Atoi(clock[:2])
	minute, _ := strconv.Atoi(clock[3:])
	return spillway.Moment{Day: time.Weekday(slices.Index(weekdays[:], day)), Minute: 60*hour + minute}
}
