package counts

import "context"

// Look asks all sources once, as Run does.
func (j *Judge) Look(ctx context.Context) { j.look(ctx) }

// Parse reads an exposition of a flavour that may have backends of these names, and gives the number of clusters.
func Parse(body []byte, flavour Flavour, names ...string) (int, error) {
	want := wanted{names: map[string]bool{}, times: true}
	for _, n := range names {
		want.names[n] = true
	}
	s, err := parse(body, flavour, want)
	for cluster, t := range s.Counters {
		if t.Failures < 0 || t.Requests < t.Failures {
			panic("a tally of " + cluster + " that cannot be")
		}
	}
	return len(s.Counters), err
}
