package kube

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
)

// entrance is a listener of the gateway at one of its addresses.
type entrance struct {
	base string // "https://10.0.0.7:443"
	host string // those that it takes: "shop.example.com", "*.example.com"; "" = all
}

// takes reports whether users of a host come in there.
func (e entrance) takes(host string) bool {
	suffix, any := strings.CutPrefix(e.host, "*")
	return e.host == "" || strings.EqualFold(e.host, host) || any && len(host) > len(suffix) && strings.EqualFold(host[len(host)-len(suffix):], suffix)
}

// concrete is a name that a host with a wildcard covers, to ask for.
func concrete(host string) string { return strings.Replace(host, "*", "spillway-probe", 1) }

// doors remembers where the gateway is reached, and which of its instances cannot be.
type doors struct {
	turn sync.Mutex // held while the cluster is asked; before mu

	mu        sync.Mutex
	entrances []entrance          // believed for a moment: they are asked for often, and move hardly ever
	problem   string              // why none were had at the last try; "" = they were
	at        time.Time           // when it ended
	away      map[opening]absence // instances that cannot be asked
	blind     time.Time           // until when no instance is asked, because none could be: the gateway is, as if they were not known
}

// doorTime is how long a gateway's addresses are believed.
const doorTime = 5 * time.Second

// bases are the URLs of the gateway by which users of a host come in. A host that no listener takes has none, and
// a problem that says so.
func (p *Platform) bases(ctx context.Context, host string) (bases []string, problem string) {
	all, problem := p.entrances(ctx)
	for _, e := range all {
		if e.takes(host) {
			bases = append(bases, e.base)
		}
	}
	if problem == "" && len(bases) == 0 {
		problem = fmt.Sprintf("no listener of gateway %s/%s takes %s", p.conf.Gateway.Namespace, p.conf.Gateway.Name, host)
	}
	return bases, problem
}

// entrances are all ways into the gateway that we may use.
func (p *Platform) entrances(ctx context.Context) (all []entrance, problem string) {
	if p.conf.GatewayURL != "" {
		return []entrance{{base: strings.TrimSuffix(p.conf.GatewayURL, "/")}}, ""
	}
	came := time.Now()
	all, problem, at := p.doors.last()
	if problem == "" && came.Sub(at) < doorTime {
		return all, ""
	}
	if !p.doors.turn.TryLock() {
		if len(all) > 0 { // somebody asks, and who waits for that learns hardly ever anything
			return all, ""
		}
		p.doors.turn.Lock()
	}
	defer p.doors.turn.Unlock()
	if all, problem, at = p.doors.last(); at.After(came) {
		return all, problem
	}
	all, problem = p.askForEntrances(ctx)
	if ctx.Err() == nil { // else it is no answer for others
		p.doors.learn(all, problem)
	}
	return all, problem
}

// last is what was known of the entrances when they were asked for last, and when that was.
func (d *doors) last() (all []entrance, problem string, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.entrances, d.problem, d.at
}

// learn remembers an answer. A problem takes none of the entrances away that were known.
func (d *doors) learn(all []entrance, problem string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problem, d.at = problem, time.Now()
	if problem == "" {
		d.entrances = all
	}
}

func (p *Platform) askForEntrances(ctx context.Context) (all []entrance, problem string) {
	var g gatewayv1.Gateway
	namespace := cmp.Or(p.conf.Gateway.Namespace, p.conf.Namespace)
	if err := p.live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: p.conf.Gateway.Name}, &g); err != nil {
		return nil, spillway.Text(explain("look for gateway "+p.conf.Gateway.Name, err))
	}
	all = entrancesOf(&g, p.conf.Gateway.Section, p.conf.Namespace)
	if len(all) == 0 {
		return nil, fmt.Sprintf("gateway %s/%s tells no address of a listener for HTTP in its status; say where it is reached: --gateway-url", namespace, p.conf.Gateway.Name)
	}
	return all, ""
}

// entrancesOf are the listeners for HTTP and HTTPS that take routes of a namespace and are served. section names the
// one that routes are attached to; "" = all. Those that choose namespaces by their labels are taken to choose ours.
func entrancesOf(g *gatewayv1.Gateway, section, namespace string) (all []entrance) {
	for _, l := range g.Spec.Listeners {
		scheme := map[gatewayv1.ProtocolType]string{gatewayv1.HTTPProtocolType: "http", gatewayv1.HTTPSProtocolType: "https"}[l.Protocol]
		if scheme == "" || section != "" && string(l.Name) != section || !allows(l, g.Namespace, namespace) || unserved(g, l.Name) != "" {
			continue
		}
		for _, a := range g.Status.Addresses {
			e := entrance{base: scheme + "://" + net.JoinHostPort(a.Value, strconv.Itoa(int(l.Port)))}
			if l.Hostname != nil {
				e.host = string(*l.Hostname)
			}
			all = append(all, e)
		}
	}
	return all
}

// allows reports whether a listener takes HTTPRoutes of a namespace, as far as the listener itself says it.
func allows(l gatewayv1.Listener, itsOwn, namespace string) bool {
	from := gatewayv1.NamespacesFromSame // the default
	if a := l.AllowedRoutes; a != nil {
		if len(a.Kinds) > 0 && !slices.ContainsFunc(a.Kinds, func(k gatewayv1.RouteGroupKind) bool { return k.Kind == "HTTPRoute" }) {
			return false
		}
		if a.Namespaces != nil && a.Namespaces.From != nil {
			from = *a.Namespaces.From
		}
	}
	return from == gatewayv1.NamespacesFromAll || from == gatewayv1.NamespacesFromSelector || from == gatewayv1.NamespacesFromSame && itsOwn == namespace
}

// unserved says why the gateway does not serve a listener, such as that its certificate is not there; "" = it does, or
// does not say.
func unserved(g *gatewayv1.Gateway, listener gatewayv1.SectionName) string {
	for _, l := range g.Status.Listeners {
		for _, kind := range []gatewayv1.ListenerConditionType{gatewayv1.ListenerConditionResolvedRefs, gatewayv1.ListenerConditionProgrammed} {
			i := slices.IndexFunc(l.Conditions, func(c metav1.Condition) bool { return c.Type == string(kind) })
			if l.Name == listener && i >= 0 && l.Conditions[i].Status == metav1.ConditionFalse {
				return cmp.Or(l.Conditions[i].Message, l.Conditions[i].Reason)
			}
		}
	}
	return ""
}

// brokenListeners are those that are not served, each with the reason.
func brokenListeners(g *gatewayv1.Gateway, section string) (all []string) {
	for _, l := range g.Spec.Listeners {
		if why := unserved(g, l.Name); why != "" && (section == "" || section == string(l.Name)) {
			all = append(all, fmt.Sprintf("listener %s: %s", l.Name, why))
		}
	}
	return all
}

// asking is what a gateway is asked by at a URL, as a user of a host. Its certificate is not verified: no secret is
// told, and it may be of an authority that users alone know.
func (p *Platform) asking(at, host string) *http.Client {
	if !strings.HasPrefix(at, "https:") {
		return p.http
	}
	asks := *p.http
	asks.Transport = &http.Transport{DisableKeepAlives: true, DialContext: dialOpening, TLSClientConfig: &tls.Config{ServerName: host, InsecureSkipVerify: true}}
	return &asks
}

// Way is how a user of a host comes to one of the gateway's instances: a URL, and how to connect there. By HTTPS where
// there is that: some gateways lead all else to it. ErrUnavailable when it is not known now.
func (p *Platform) Way(ctx context.Context, host string) (base string, by *http.Transport, err error) {
	if p.conf.Gateway.Name == "" {
		return "", nil, fmt.Errorf("there is no gateway: %w", spillway.ErrUnavailable)
	}
	all, _, problem := p.openings(ctx, host)
	if problem != "" {
		return "", nil, fmt.Errorf("%s: %w", problem, spillway.ErrUnavailable)
	}
	if secure := slices.DeleteFunc(slices.Clone(all), func(d opening) bool { return !strings.HasPrefix(d.base, "https:") }); len(secure) > 0 {
		all = secure
	}
	d := all[rand.IntN(len(all))]
	return d.base, &http.Transport{
		TLSClientConfig: &tls.Config{ServerName: host, InsecureSkipVerify: true}, // as asking does
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialOpening(context.WithValue(ctx, dialKey{}, d.at), network, address)
		},
	}, nil
}

// Ports are those at which users reach the gateway by HTTP and by HTTPS: ":80"; "" = not by that, or it is not known.
func (p *Platform) Ports(ctx context.Context) (plain, secure string) {
	if p.conf.Gateway.Name == "" {
		return "", ""
	}
	all, _ := p.entrances(ctx) // without an answer, no port is known
	for _, e := range all {
		at, err := url.Parse(e.base)
		switch {
		case err != nil:
		case at.Scheme == "https":
			secure = cmp.Or(secure, ":"+cmp.Or(at.Port(), "443"))
		default:
			plain = cmp.Or(plain, ":"+cmp.Or(at.Port(), "80"))
		}
	}
	return plain, secure
}

// Doubts are what an app's configuration says of TLS and the gateway does otherwise, a sentence for each service: TLS
// ends at the gateway, whose listener has the certificate.
func (p *Platform) Doubts(ctx context.Context, config spillway.App) (all []string) {
	if p.conf.Gateway.Name == "" {
		return nil
	}
	entrances, problem := p.entrances(ctx)
	if problem != "" {
		return nil // the deploy will wait for the gateway, and say why
	}
	at := p.conf.Gateway.Namespace + "/" + p.conf.Gateway.Name
	for _, s := range config.Services {
		if s.TLS == nil {
			continue
		}
		hosts := slices.Clone(s.Host)
		for _, t := range s.Tracks {
			hosts = append(hosts, t.Host...)
		}
		if s.Standby != nil {
			hosts = append(hosts, s.Standby.Host...)
		}
		hosts = slices.DeleteFunc(hosts, func(host string) bool {
			return slices.ContainsFunc(entrances, func(e entrance) bool { return strings.HasPrefix(e.base, "https:") && e.takes(concrete(host)) })
		})
		switch {
		case len(hosts) > 0 && p.conf.GatewayURL == "":
			all = append(all, fmt.Sprintf("%s: warning: tls is not served for %s: gateway %s has no listener for HTTPS that takes it; give it one, with a certificate (certificateRefs)", s.Name, strings.Join(hosts, ", "), at))
		default:
			all = append(all, fmt.Sprintf("%s: TLS ends at gateway %s, with the certificate of its listener; that of tls is not used here", s.Name, at))
		}
		if s.TLS.Redirect {
			all = append(all, fmt.Sprintf("%s: warning: requests by HTTP are served, and not sent to HTTPS as tls wants it: that is the gateway's to do here", s.Name))
		}
	}
	return all
}
