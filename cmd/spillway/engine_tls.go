package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
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
			_, err = tls.LoadX509KeyPair(s.TLS.Cert, s.TLS.Key)
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
		pair, err := tls.LoadX509KeyPair(s.TLS.Cert, s.TLS.Key)
		if err != nil || pair.Leaf == nil {
			continue // see checkCertificates
		}
		for _, host := range publicNames(s) {
			if err := pair.Leaf.VerifyHostname(host); err != nil {
				doubts = append(doubts, fmt.Sprintf("%s: warning: the certificate %s is not for %s: browsers will refuse it", s.Name, s.TLS.Cert, host))
			}
		}
		if now.After(pair.Leaf.NotAfter) {
			doubts = append(doubts, fmt.Sprintf("%s: warning: the certificate %s expired at %s", s.Name, s.TLS.Cert, pair.Leaf.NotAfter.Format(time.RFC3339)))
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
		for _, c := range fileChecks(app, config, https, time.Now()) {
			if c.State == "ok" {
				good++
			} else {
				bad = append(bad, c)
			}
		}
		report, err := e.proxy.Report(ctx, app)
		if err != nil {
			continue // the check of the proxy says why
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
				bad = append(bad, spillway.Check{Name: what, State: "fail", Text: report.Dead[what], Remedy: "it is asked for again by itself; status of " + string(app) + " shows when there is one"})
			}
		}
		good += max(0, asked)
	}
	if len(bad) == 0 && good > 0 {
		return []spillway.Check{{Name: "certificates", State: "ok", Text: fmt.Sprintf("%s, all good", count(good, "certificate"))}}
	}
	return bad
}

// fileChecks looks at the certificates in files of an app.
func fileChecks(app spillway.Ref, a spillway.App, https string, now time.Time) []spillway.Check {
	var checks []spillway.Check
	for _, s := range a.Services {
		if s.TLS == nil || s.TLS.Auto {
			continue
		}
		check := spillway.Check{Name: "certificate " + s.TLS.Cert, State: "ok", Remedy: "put a good one in its place: the files are read again within a second"}
		one := spillway.App{Services: []spillway.Service{s}}
		pair, err := tls.LoadX509KeyPair(s.TLS.Cert, s.TLS.Key)
		doubts := doubtfulCertificates(one, "", now)[1:] // the first is that there is no HTTPS
		switch {
		case err != nil:
			check.State, check.Text = "fail", fmt.Sprintf("of %s in %s: %v", s.Name, app, err)
		case https == "":
			check.State, check.Text, check.Remedy = "warn", fmt.Sprintf("of %s in %s is not used: the proxy serves no HTTPS", s.Name, app), "start the server with --https :443"
		case len(doubts) > 0:
			check.State, check.Text = "fail", fmt.Sprintf("in %s: %s", app, strings.ReplaceAll(strings.Join(doubts, "; "), "warning: ", ""))
		case now.Add(expiresSoon).After(pair.Leaf.NotAfter):
			check.State, check.Text = "warn", fmt.Sprintf("of %s in %s expires at %s", s.Name, app, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		checks = append(checks, check)
	}
	return checks
}
