package counts

import (
	"errors"
	"math"
	"slices"
	"sync"
	"time"
)

// exact is how well the start of a process is known, in seconds: the kernel says it from the time of the last boot,
// which it may correct by whole seconds, and Envoy tells its age in whole seconds.
const exact = 2

// sameProcess reports whether two starts, in Unix seconds, are of one process. What is corrected are whole seconds, so
// replicas that were started in the same second are told apart by the rest: 12.31 and 13.31 may be one process, 12.31
// and 12.47 are two.
func sameProcess(a, b float64) bool {
	d := math.Abs(a - b)
	return d <= exact && math.Abs(d-math.Round(d)) < 0.005
}

// mixing is how long an address is not believed after several processes answered there by turns.
const mixing = time.Minute

// errMixed is that an address is one of several instances, which answer by turns.
var errMixed = errors.New("several processes answer there by turns, so what each counts is not known; it is a Service or a load balancer with several instances of the gateway " +
	"behind it: name the Service, and each of them is read: --gateway-metrics http://SERVICE.NAMESPACE:PORT/metrics")

// identities are those of the processes that answered at each address.
type identities struct {
	mu  sync.Mutex
	all map[string]*identity
}

type identity struct {
	starts []float64 // the latest is the last
	at     time.Time // of the last answer
	turned time.Time // when one answered that another had followed; zero = never
}

// check fails when several processes answer at an address by turns. A process that ends is followed by a newer one and
// does not come back. started is 0 when it is not known, which is no mistake.
func (i *identities) check(name string, started float64, now time.Time) error {
	if started == 0 {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.all[name]
	if p == nil {
		for other, p := range i.all { // pods come and go
			if now.Sub(p.at) > forgotten {
				delete(i.all, other)
			}
		}
		p = &identity{}
		i.all[name] = p
	}
	p.at = now
	n := slices.IndexFunc(p.starts, func(s float64) bool { return sameProcess(s, started) })
	switch last := len(p.starts) - 1; {
	case n >= 0 && n < last, n < 0 && last >= 0 && started < p.starts[last]-exact:
		p.turned = now
	}
	if n >= 0 {
		p.starts = slices.Delete(p.starts, n, n+1)
	}
	p.starts = append(p.starts, started)
	p.starts = p.starts[max(0, len(p.starts)-8):]
	if !p.turned.IsZero() && now.Sub(p.turned) < mixing {
		return errMixed
	}
	return nil
}
