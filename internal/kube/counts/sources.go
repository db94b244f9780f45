package counts

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// A Source is where a Judge reads what the gateway has counted, as it answered when it was asked.
type Source struct {
	URL     string // with the address of the instance, where the URL is of several; without a password
	Problem string // why it tells nothing; "" = it answers
	Counts  bool   // it has the metric by which releases are judged
	Metric  string // the name of that: "traefik_service_requests_total"
}

// Sources asks all that Config names once, whether anybody is judged or not, and gives what they answer, sorted.
func (j *Judge) Sources(ctx context.Context) []Source {
	ctx, cancel := context.WithTimeout(ctx, j.conf.Timeout)
	defer cancel()
	metric := j.conf.Flavour.metric()
	if j.conf.Prometheus != "" {
		s := Source{URL: shown(j.conf.Prometheus, ""), Metric: metric}
		a, err := run(ctx, j.client, j.conf.Prometheus, "count("+metric+")")
		if err != nil {
			s.Problem = err.Error()
		}
		s.Counts = len(a.Data.Result) > 0
		return []Source{s}
	}
	instances, problem := j.conf.Instances()
	all := make([]Source, len(instances))
	var crew sync.WaitGroup
	for n, i := range instances {
		// Sources owns the goroutine; the timeout ends it; Sources waits for it.
		crew.Go(func() {
			all[n] = Source{URL: shown(i.URL, i.Address), Metric: metric}
			s, err := scrape(ctx, j.client, i, j.conf.Flavour, wanted{}, j.conf.Now())
			if err != nil {
				all[n].Problem = err.Error()
			}
			all[n].Counts = s.known
		})
	}
	crew.Wait()
	if len(all) == 0 {
		return []Source{{URL: "the gateway", Metric: metric, Problem: cmp.Or(problem, "it has no instance that the server was told of")}}
	}
	slices.SortFunc(all, func(a, b Source) int { return strings.Compare(a.URL, b.URL) })
	return all
}

// shown is a URL without its password, and which address of it is meant, where it has several.
func shown(text, address string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "a URL that cannot be read"
	}
	if address == "" || address == u.Host {
		return u.Redacted()
	}
	return u.Redacted() + " (" + address + ")"
}
