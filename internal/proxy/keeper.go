package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/spillway-dev/spillway"
)

const (
	// renewLast: a certificate is renewed in the last third of its life.
	renewLast = 3
	// maxOrders is how many certificates are asked for at a time.
	maxOrders = 4

	triesVersion = 1
)

// The waits after failures, by how many there were; the last one stays. An authority that refuses is asked no
// oftener than Let's Encrypt lets a name fail (5 times at once, then every 12 minutes, and an order may cost
// two: one for each way to prove a name). One that was not reached counts nothing.
var (
	waitsRefused   = []time.Duration{10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour}
	waitsLimited   = []time.Duration{time.Hour, 3 * time.Hour, 6 * time.Hour}
	waitsUnreached = []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}
)

// automatic is the certificate that an authority gives for one host. It outlives tables.
type automatic struct {
	host      string
	authority *acmeAuthority
	served    atomic.Pointer[tls.Certificate] // nil = there is none yet

	mu         sync.Mutex
	recalled   bool // the storage was looked at
	busy       bool // it is being asked for
	try        try
	unreported bool // something changed since news was asked
}

// try is what is remembered of the failures since the last success.
type try struct {
	Failures int       `json:"failures"`
	Next     time.Time `json:"next"` // not asked again before
	Why      string    `json:"why"`
}

// keeper has the certificates of authorities, of all tables there ever were: they are few and small.
type keeper struct {
	dir     string
	log     *slog.Logger
	outside *outside
	open    atomic.Int32 // orders under way

	mu          sync.Mutex
	all         map[automaticKey]*automatic
	authorities map[spillway.TLS]*acmeAuthority
	tries       map[string]try // as on disk, by automatic.id
}

type automaticKey struct {
	terms spillway.TLS
	host  string
}

// of gives the certificate of a host from an authority, not looked for yet when it is new.
func (k *keeper) of(terms spillway.TLS, host string) *automatic {
	terms = spillway.TLS{Auto: true, Email: terms.Email, CA: terms.CA, Root: terms.Root}
	key := automaticKey{terms, normalHost(host)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.all[key]; a != nil {
		return a
	}
	if k.all == nil {
		k.all, k.authorities, k.tries = map[automaticKey]*automatic{}, map[spillway.TLS]*acmeAuthority{}, readTries(k.triesPath(), k.log)
	}
	from := k.authorities[terms]
	if from == nil {
		from = &acmeAuthority{terms: terms, outside: k.outside, storage: &certmagic.FileStorage{Path: k.dir}}
		k.authorities[terms] = from
	}
	a := &automatic{host: key.host, authority: from}
	a.try = k.tries[a.id()]
	k.all[key] = a
	return a
}

func (k *keeper) triesPath() string { return filepath.Join(k.dir, "tries.json") }

// savedTries is the form of the file.
type savedTries struct {
	Version int            `json:"version"`
	Tries   map[string]try `json:"tries"`
}

// readTries reads what is remembered of failures. To forget it costs one try each, so a file that cannot be read
// is a warning.
func readTries(path string, log *slog.Logger) map[string]try {
	saved := savedTries{}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &saved)
	}
	if err == nil && saved.Version != triesVersion {
		err = fmt.Errorf("version %d is not %d", saved.Version, triesVersion)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("failures of certificate authorities are forgotten", "file", path, "error", err)
	}
	if err != nil || saved.Tries == nil {
		return map[string]try{}
	}
	return saved.Tries
}

// remember keeps how an order ended, for the next process.
func (k *keeper) remember(a *automatic, t try) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, known := k.tries[a.id()]; t.Failures == 0 && !known {
		return
	}
	k.tries[a.id()] = t
	if t.Failures == 0 {
		delete(k.tries, a.id())
	}
	text, err := json.Marshal(savedTries{triesVersion, k.tries})
	if err == nil {
		err = writeFile(k.triesPath(), text)
	}
	if err != nil {
		k.log.Error("failure of a certificate authority could not be saved", "host", a.host, "error", err)
	}
}

// id names the certificate in the file of failures.
func (a *automatic) id() string { return a.authority.key() + " " + a.host }

// title names the certificate for people.
func (a *automatic) title() string { return "certificate of " + a.host }

// wildcard reports whether the host is several. Rules have such hosts.
func (a *automatic) wildcard() bool { return strings.HasPrefix(a.host, "*") }

func (a *automatic) pair() *tls.Certificate { return a.served.Load() }

// recall looks at the storage once.
func (a *automatic) recall(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.recalled {
		return
	}
	a.recalled = true
	_ = a.load(ctx) // a.try says why
}

// load serves what the storage has. a.mu is held.
func (a *automatic) load(ctx context.Context) error {
	pair, err := a.authority.stored(ctx, a.host)
	if err != nil {
		a.try.Why, a.unreported = a.authority.trouble(a.host, err).why, true
		return err
	}
	if pair != nil {
		a.served.Store(pair)
		a.unreported = true
	}
	return nil
}

// news reports whether something is to be told since the last call.
func (a *automatic) news() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.unreported
	a.unreported = false
	return was
}

// problem is as in source.
func (a *automatic) problem(now time.Time) (what, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pair, next := a.served.Load(), ""
	if !a.try.Next.IsZero() {
		next = "; the next try is at " + a.try.Next.UTC().Format(time.RFC3339)
	}
	switch {
	case a.wildcard():
		return a.title(), "a wildcard is given only to who changes its DNS, which Spillway cannot do; list each name, or give cert and key"
	case pair == nil && a.try.Why == "":
		return a.title(), "there is none yet, and its HTTPS does not work; " + a.authority.name() + " is being asked"
	case pair == nil:
		return a.title(), "there is none yet, and its HTTPS does not work: " + a.try.Why + next
	case now.After(pair.Leaf.NotAfter):
		return a.title(), "it expired at " + pair.Leaf.NotAfter.UTC().Format(time.RFC3339) + " and was not renewed: " + a.try.Why + next
	case a.try.Why != "":
		return a.title(), "it was not renewed, and is good until " + pair.Leaf.NotAfter.UTC().Format(time.RFC3339) + ": " + a.try.Why + next
	}
	return "", ""
}

// due reports whether the authority is to be asked now, and takes the order for the caller.
func (a *automatic) due(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wildcard() || a.busy || now.Before(a.try.Next) || !expiring(a.served.Load(), now) {
		return false
	}
	a.busy = true
	return true
}

// expiring reports whether a certificate is in the last third of its life, or is none.
func expiring(pair *tls.Certificate, now time.Time) bool {
	if pair == nil {
		return true
	}
	life := pair.Leaf.NotAfter.Sub(pair.Leaf.NotBefore)
	return now.After(pair.Leaf.NotAfter.Add(-life / renewLast))
}

// keepCertificates asks authorities for what is missing or expires, until ctx ends. Orders that are under way
// then are given up, and their locks with them.
func (p *plane) keepCertificates(ctx context.Context) {
	var cache *certmagic.Cache // made with the first order: most proxies never need it
	defer func() {
		if cache != nil {
			cache.Stop()
		}
	}()
	var orders sync.WaitGroup
	defer orders.Wait()
	places := make(chan struct{}, maxOrders)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for _, w := range p.wanted() {
			select {
			case places <- struct{}{}:
			default:
				continue // next time
			}
			if !w.due(time.Now()) {
				<-places
				continue
			}
			if cache == nil {
				cache = certmagic.NewCache(certmagic.CacheOptions{
					GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errors.New("nothing is cached") },
					Logger:           zap.NewNop(),
				})
			}
			p.keeper.open.Add(1)
			// Owned by this function; ends with the order, or with ctx; this function waits.
			orders.Go(func() {
				defer func() { p.keeper.open.Add(-1); <-places }()
				p.order(ctx, cache, w.automatic)
				p.watch.tell(w.app)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// settle waits for the orders under way: an heir answers for them, and need not make them again.
func (k *keeper) settle(limit time.Duration) {
	poll(time.Now().Add(limit), func() bool { return k.open.Load() == 0 })
}

// wish is a certificate that a table wants from an authority.
type wish struct {
	*automatic
	app spillway.Ref
}

// wanted are those of the tables that are served. Who hands over or leaves begins nothing: its heir does.
func (p *plane) wanted() []wish {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen || p.closing() || p.outside.https == 0 {
		return nil
	}
	var list []wish
	for _, app := range p.apps {
		p.sources(app.table, func(s source) {
			if a, ok := s.(*automatic); ok {
				list = append(list, wish{a, app.ref})
			}
		})
	}
	return list
}

// order asks once for the certificate of a host, and serves it.
func (p *plane) order(ctx context.Context, cache *certmagic.Cache, a *automatic) {
	before := a.served.Load()
	stored, err := a.authority.stored(ctx, a.host)
	if err == nil && (stored == nil || expiring(stored, time.Now())) {
		err = a.authority.order(ctx, cache, a.host, stored == nil)
	}
	a.mu.Lock()
	if err == nil {
		failures := a.try.Failures
		a.try = try{}
		if err = a.load(ctx); err != nil {
			a.try.Failures = failures
		}
	}
	if ctx.Err() != nil {
		err = nil // this process leaves: nobody failed
	} else if err != nil {
		trouble := a.authority.trouble(a.host, err)
		a.try = trouble.after(a.try, time.Now())
	}
	a.busy, a.unreported = false, true
	end, now := a.try, a.served.Load()
	a.mu.Unlock()
	if ctx.Err() == nil {
		p.keeper.remember(a, end)
	}
	switch {
	case err != nil:
		p.log.Error("no certificate", "host", a.host, "authority", a.authority.name(), "reason", end.Why, "next", end.Next, "error", err)
	case now != nil && (before == nil || !now.Leaf.Equal(before.Leaf)):
		p.log.Info("certificate", "host", a.host, "authority", a.authority.name(), "until", now.Leaf.NotAfter)
	}
}
