package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// opening is where an instance of the gateway is asked.
type opening struct {
	base string // "http://10.0.0.7": the URL of the gateway
	at   string // "10.1.2.3:8000": where that instance takes its requests; "" = whoever answers at the URL
}

// String names it in a sentence.
func (d opening) String() string {
	if d.at == "" {
		return "the gateway at " + d.base
	}
	return "the gateway's instance " + d.at
}

// absence is since when an instance cannot be connected to, and when that was seen last.
type absence struct{ since, last time.Time }

const (
	// gone is after what time an instance that takes no connection is left out, when others do: its process has ended, and
	// when one starts again it begins with the newest routes.
	gone = 10 * time.Second
	// calmTime is how long an answer of a gateway has to stay the same where its instances are not known, while it is asked
	// over new connections all the time: some instances learn of a route later than others.
	calmTime = 2 * time.Second
	// dialTime is how long a connection may take, so that none is told from no answer: it is less than the client's timeout.
	dialTime = 1500 * time.Millisecond
	// blindTime is after what time instances are asked again of which none could be.
	blindTime = time.Minute
)

// calm is since when the answers are good.
type calm struct{ since time.Time }

// holds reports whether they have been good for long enough.
func (c *calm) holds(good bool, long time.Duration) bool {
	if !good {
		c.since = time.Time{}
		return false
	}
	if c.since.IsZero() {
		c.since = time.Now()
	}
	return time.Since(c.since) >= long
}

// unsure is for how long the gateway has to say that it serves a route before that is believed.
func (p *Platform) unsure(ctx context.Context, parts []part) (long time.Duration) {
	for _, part := range parts {
		if h, ok := part.object.(*gatewayv1.HTTPRoute); ok && len(h.Spec.Hostnames) > 0 { // by which it is asked
			long = max(long, p.calmTime(ctx, concrete(string(h.Spec.Hostnames[0]))))
		}
	}
	return long
}

// calmTime is that of a host whose users come by a gateway whose instances are not known, and else 0.
func (p *Platform) calmTime(ctx context.Context, host string) time.Duration {
	if _, all, _ := p.openings(ctx, host); all {
		return 0
	}
	return calmTime
}

func portOfURL(base string) int {
	u, err := url.Parse(base)
	if err != nil {
		return 0
	}
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	return map[string]int{"http": 80, "https": 443}[u.Scheme]
}

// openings are all the places at which instances of the gateway are asked as users of a host, and whether those are all
// that there are. By one listener is enough for that: what an instance serves by another it has read at the same time.
func (p *Platform) openings(ctx context.Context, host string) (list []opening, all bool, problem string) {
	bases, problem := p.bases(ctx, host)
	p.doors.mu.Lock()
	blind := time.Now().Before(p.doors.blind)
	p.doors.mu.Unlock()
	k := p.conf.Instances.serving(bases)
	for _, base := range bases {
		if blind || len(k.at[base]) == 0 {
			list = append(list, opening{base: base})
			continue
		}
		for _, at := range k.at[base] {
			list = append(list, opening{base, at})
		}
	}
	return list, k.all && !blind, problem
}

// everywhere asks every instance of the gateway the same, at the same time, as a user of a host, and gives the first
// problem; "" = there is none. ask fails when an instance cannot be asked. One that cannot for some time is left out when
// others can.
func (p *Platform) everywhere(ctx context.Context, host string, ask func(context.Context, opening) (problem string, err error)) string {
	all, _, problem := p.openings(ctx, host)
	if problem != "" {
		return problem
	}
	problems, errs := make([]string, len(all)), make([]error, len(all))
	var crew sync.WaitGroup
	for i, d := range all {
		crew.Go(func() { problems[i], errs[i] = ask(ctx, d) }) // everywhere owns it; the client's timeout ends it; waited for below
	}
	crew.Wait()
	answered := 0
	for i, d := range all {
		if errs[i] == nil {
			answered++
		}
		if p.absent(d, unconnected(errs[i])) {
			errs[i], problems[i] = nil, ""
		}
	}
	for i, d := range all {
		switch {
		case errs[i] != nil && d.at == "":
			return fmt.Sprintf("the gateway cannot be asked: %v; if it is reached in another way from here, say how: --gateway-url", errs[i])
		case errs[i] != nil:
			return fmt.Sprintf("%s takes requests of users and cannot be asked: %v", d, errs[i])
		case problems[i] != "":
			return problems[i]
		}
	}
	if answered == 0 {
		p.doors.mu.Lock()
		p.doors.blind = time.Now().Add(blindTime)
		p.doors.mu.Unlock()
		return fmt.Sprintf("none of the gateway's %d instances can be asked, so it is itself", len(all))
	}
	return ""
}

// unconnected reports whether an instance took no connection. One that takes it and is silent is there: users are led by it.
func unconnected(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "dial"
}

// absent keeps whether an instance takes no connection, and reports whether it took none for so long that it is taken for gone.
func (p *Platform) absent(d opening, failed bool) bool {
	p.doors.mu.Lock()
	defer p.doors.mu.Unlock()
	if !failed || d.at == "" {
		delete(p.doors.away, d)
		return false
	}
	now, a := time.Now(), p.doors.away[d]
	if now.Sub(a.last) > gone { // nobody has asked since
		a.since = now
	}
	a.last = now
	if p.doors.away == nil {
		p.doors.away = map[opening]absence{}
	}
	p.doors.away[d] = a
	for other, b := range p.doors.away {
		if now.Sub(b.last) > time.Hour {
			delete(p.doors.away, other)
		}
	}
	return now.Sub(a.since) >= gone
}

// dialKey is that of opening.at in the context of a request.
type dialKey struct{}

// dialOpening connects to the instance that a request is for, whatever the name in its URL means.
func dialOpening(ctx context.Context, network, address string) (net.Conn, error) {
	if at, _ := ctx.Value(dialKey{}).(string); at != "" {
		address = at
	}
	return (&net.Dialer{Timeout: dialTime}).DialContext(ctx, network, address)
}

// look makes one request to an instance of the gateway, over a new connection, and gives the host that its answer leads to.
func (p *Platform) look(ctx context.Context, d opening, path, host string) (to string, status int, err error) {
	request, err := http.NewRequestWithContext(context.WithValue(ctx, dialKey{}, d.at), http.MethodGet, d.base+path, nil)
	if err != nil {
		return "", 0, err
	}
	request.Host = host
	answer, err := p.asking(d.base, host).Do(request)
	if err != nil {
		return "", 0, err
	}
	_ = answer.Body.Close() // nothing in it is read
	if location, err := url.Parse(answer.Header.Get("Location")); err == nil {
		to = location.Hostname()
	}
	return to, answer.StatusCode, nil
}
