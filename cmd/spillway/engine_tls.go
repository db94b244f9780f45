package main

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/spillway-dev/spillway"
)

// checkCertificates refuses an app whose certificates cannot be used: its hosts would lose their HTTPS with a
// deploy in which nothing else fails, and no judge would see it, because such requests reach no replica.
func checkCertificates(a spillway.App) error {
	for _, s := range a.Services {
		if s.TLS == nil {
			continue
		}
		if _, err := tls.LoadX509KeyPair(s.TLS.Cert, s.TLS.Key); err != nil {
			return fmt.Errorf("service %s: tls: %w; nothing was changed: its hosts would have had no HTTPS: %w", s.Name, err, spillway.ErrInvalid)
		}
	}
	return nil
}

// doubtfulCertificates says of certificates that can be used what browsers will not like about them.
func doubtfulCertificates(a spillway.App, now time.Time) []string {
	var doubts []string
	for _, s := range a.Services {
		if s.TLS == nil {
			continue
		}
		pair, err := tls.LoadX509KeyPair(s.TLS.Cert, s.TLS.Key)
		if err != nil || pair.Leaf == nil {
			continue // see checkCertificates
		}
		hosts := append([]string{}, s.Host...)
		for _, t := range s.Tracks {
			hosts = append(hosts, t.Host...)
		}
		if s.Standby != nil {
			hosts = append(hosts, s.Standby.Host...)
		}
		for _, host := range hosts {
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
