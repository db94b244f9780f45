package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy"
)

// expiresSoon is when doctor begins to speak of a certificate in files that will expire.
const expiresSoon = 14 * 24 * time.Hour

// checkCertificates refuses an app whose certificates cannot be used: its hosts would lose their HTTPS with a
// deploy in which nothing else fails, and no judge would see it, because such requests reach no replica.
func checkCertificates(a spillway.App) error {
	for _, s := range a.Services {
		if s.TLS == nil {
			continue
		}
		var err error
		if s.TLS.Auto {
			err = checkRoot(s.TLS.Root)
		} else {
			var bad *proxy.PairError
			if _, err = proxy.ReadPair(*s.TLS); errors.As(err, &bad) {
				err = fmt.Errorf("%w; %s", err, bad.Before())
			}
		}
		if err != nil {
			return fmt.Errorf("service %s: tls: %w; nothing was changed: its hosts would have had no HTTPS: %w", s.Name, err, spillway.ErrInvalid)
		}
	}
	return nil
}

// checkRoot looks whether the file that makes a private authority known can be used; "" is none.
func checkRoot(file string) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
		err = fmt.Errorf("%s has no certificate in PEM", file)
	}
	if err != nil {
		return fmt.Errorf("root of the certificate authority: %w", err)
	}
	return nil
}

// doubted says what users will not like about an app that can be deployed, and may not be meant so.
func (e *engine) doubted(ctx context.Context, a spillway.App) []string {
	if e.doubts != nil {
		return e.doubts(ctx, a)
	}
	return doubtfulCertificates(a, e.Info(ctx).HTTPS, time.Now())
}

// doubtfulCertificates says of certificates that can be used what browsers will not like about them. https is where
// the proxy serves HTTPS; "" = nowhere.
func doubtfulCertificates(a spillway.App, https string, now time.Time) []string {
	var doubts []string
	for _, s := range a.Services {
		if s.TLS == nil {
			continue
		}
		if https == "" {
			doubts = append(doubts, s.Name+": warning: the proxy serves no HTTPS, so its tls is not used: start the server with --https :443")
		}
		if s.TLS.Auto {
			continue // status says how it goes
		}
		pair, err := proxy.ReadPair(*s.TLS)
		if err != nil {
			continue // see checkCertificates
		}
		for _, host := range publicNames(s) {
			if err := pair.Leaf.VerifyHostname(host); err != nil {
				doubts = append(doubts, fmt.Sprintf("%s: warning: the certificate %s is not for %s: browsers will refuse it", s.Name, s.TLS.Cert, host))
			}
		}
		if why, _ := proxy.Stale(pair, now); why != "" {
			doubts = append(doubts, fmt.Sprintf("%s: warning: the certificate %s %s", s.Name, s.TLS.Cert, why))
		}
	}
	return doubts
}

// publicNames are the hosts of a service, its tracks and its dark colour.
func publicNames(s spillway.Service) []string {
	hosts := slices.Clone(s.Host)
	for _, t := range s.Tracks {
		hosts = append(hosts, t.Host...)
	}
	if s.Standby != nil {
		hosts = append(hosts, s.Standby.Host...)
	}
	return hosts
}

// certificateChecks looks at the certificates of what serves: at files now, and at what the proxy says of those that
// an authority gives. It is one check when all are good; none when nothing has HTTPS.
func (e *engine) certificateChecks(ctx context.Context, https string) []spillway.Check {
	apps, err := e.store.Apps(ctx)
	if err != nil {
		return []spillway.Check{{Name: "certificates", State: "fail", Text: err.Error(), Remedy: "see the server's log"}}
	}
	var bad []spillway.Check
	good := 0
	for _, app := range apps {
		saved, err := e.store.Load(ctx, app)
		if err != nil {
			continue // it was destroyed in this moment
		}
		config := saved.Spec.Releases[saved.Status.Stable].Config
		report, err := e.proxy.Report(ctx, app) // without one, the check of the proxy says why
		for _, c := range fileChecks(app, config, https, report.Dead, time.Now()) {
			if c.State == "ok" {
				good++
			} else {
				bad = append(bad, c)
			}
		}
		if err != nil {
			continue
		}
		asked := 0
		for _, s := range config.Services {
			if s.TLS != nil && s.TLS.Auto {
				asked += len(publicNames(s))
			}
		}
		for _, what := range slices.Sorted(maps.Keys(report.Dead)) {
			if strings.HasPrefix(what, "certificate of ") {
				asked--
				bad = append(bad, askedCheck(app, what, report.Dead[what]))
			}
		}
		good += max(0, asked)
	}
	if len(bad) == 0 && good > 0 {
		return []spillway.Check{{Name: "certificates", State: "ok", Text: fmt.Sprintf("%s, all good", count(good, "certificate"))}}
	}
	return bad
}

// askedCheck is the check of a certificate that an authority has not given, or not again. why ends with what to do
// about it where it is not asked for by itself.
func askedCheck(app spillway.Ref, what, why string) spillway.Check {
	c := spillway.Check{Name: what, State: "fail", Text: why}
	if strings.Contains(why, "the next try is at ") || strings.HasSuffix(why, " is being asked") {
		c.Remedy = "it is asked for again by itself; status of " + string(app) + " shows when there is one"
	} else if i := strings.LastIndex(why, "; "); i >= 0 {
		c.Text, c.Remedy = why[:i], why[i+2:]
	}
	return c
}

// fileChecks looks at the certificates in files of an app. dead is what the proxy says of them, by file.
func fileChecks(app spillway.Ref, a spillway.App, https string, dead map[string]string, now time.Time) []spillway.Check {
	var checks []spillway.Check
	for _, s := range a.Services {
		if s.TLS == nil || s.TLS.Auto {
			continue
		}
		check := spillway.Check{Name: "certificate " + s.TLS.Cert, State: "ok", Remedy: "put a good one in its place: the files are read again within a second"}
		one := spillway.App{Services: []spillway.Service{s}}
		pair, err := proxy.ReadPair(*s.TLS)
		doubts := doubtfulCertificates(one, "", now)[1:] // the first is that there is no HTTPS
		var bad *proxy.PairError
		switch {
		case errors.As(err, &bad):
			why := cmp.Or(strings.TrimSuffix(dead[bad.File], "; "+bad.Remedy), bad.Why) // the proxy knows what is served instead
			check.State, check.Text, check.Remedy = "fail", fmt.Sprintf("of %s in %s: %s %s", s.Name, app, bad.File, why), bad.Remedy
		case https == "":
			check.State, check.Text, check.Remedy = "warn", fmt.Sprintf("of %s in %s is not used: the proxy serves no HTTPS", s.Name, app), "start the server with --https :443"
		case len(doubts) > 0:
			check.State, check.Text = "fail", fmt.Sprintf("in %s: %s", app, strings.ReplaceAll(strings.Join(doubts, "; "), "warning: ", ""))
			if _, remedy := proxy.Stale(pair, now); remedy != "" {
				check.Remedy = remedy
			}
		case now.Add(expiresSoon).After(pair.Leaf.NotAfter):
			check.State, check.Text = "warn", fmt.Sprintf("of %s in %s expires at %s", s.Name, app, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		checks = append(checks, check)
	}
	return checks
}
