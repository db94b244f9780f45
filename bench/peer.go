package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// startTime is how long a proxy may take until it answers. 10,000 routes take some of them a while.
const startTime = 60 * time.Second

// peer is one of those that are compared.
type peer struct {
	name  string // in results.json
	title string // for people
	// missing says why it cannot be measured; "" = it can.
	missing string
	version string
	// start makes a proxy of the address of the backend; the one without is asked itself.
	start func(ctx context.Context, s setup) (*process, error)
	// after is called when the load is over, and says what makes the measurement worthless.
	after func(ctx context.Context, s setup) error
}

// setup is what a proxy is started for.
type setup struct {
	testCase
	*peer
	dir     string // empty, for this proxy alone
	port    int    // for HTTP on 127.0.0.1
	tlsPort int    // for HTTPS
	backend string // address
	cert    string // PEM file of a certificate for localhost
	key     string
	pair    string // both in one file
}

// hosts are those with a route.
func (s setup) hosts() []string {
	if s.routes <= 1 {
		return []string{"localhost"}
	}
	list := make([]string, s.routes)
	for i := range list {
		list[i] = fmt.Sprintf("h%05d.test", i)
	}
	return list
}

// url is what the load asks.
func (s setup) url() string {
	if s.start == nil {
		return "http://" + s.backend + s.path
	}
	if s.secure {
		return "https://localhost:" + strconv.Itoa(s.tlsPort) + s.path
	}
	return "http://127.0.0.1:" + strconv.Itoa(s.port) + s.path
}

// address is where plain HTTP is served.
func (s setup) address() string {
	if s.start == nil {
		return s.backend
	}
	return "127.0.0.1:" + strconv.Itoa(s.port)
}

// await returns when what serves s answers as the backend does: for the first host and the last.
func await(ctx context.Context, s setup, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	// The certificate is our own, and what is measured is not whether it is trusted.
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, ForceAttemptHTTP2: s.by == byH2load, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	transport.DialContext = (&net.Dialer{Timeout: time.Second}).DialContext
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	hosts := s.hosts()
	for _, host := range []string{hosts[0], hosts[len(hosts)-1]} {
		for {
			err := ask(ctx, client, s, host)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w after %s", err, startTime)
			case <-p.ended:
				return fmt.Errorf("it ended: %w", errors.Join(p.err, err))
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// ask makes one request and compares the answer with the backend's.
func ask(ctx context.Context, client *http.Client, s setup, host string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(), nil)
	if err != nil {
		return err
	}
	req.Host = host
	req.Header.Set(userHeader, "1")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return err
	}
	if want := int64(bodySize(s.path)); resp.StatusCode != http.StatusOK || n != want {
		return fmt.Errorf("%s answers %d with %d bytes instead of 200 with %d", s.url(), resp.StatusCode, n, want)
	}
	if s.by == byH2load && resp.ProtoMajor != 2 {
		return fmt.Errorf("%s answers in %s instead of HTTP/2", s.url(), resp.Proto)
	}
	return nil
}
