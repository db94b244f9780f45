package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream" //lint:ignore SA1019 the dialer of client-go gives its types
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport/spdy"

	"github.com/spillway-dev/spillway"
)

// forwardProtocol is how an API server is asked to forward ports: a connection over SPDY, on it for every connection
// to a port a stream of its data and one of its errors (k8s.io/api/core/v1, pods/portforward).
const forwardProtocol = "portforward.k8s.io"

// CurrentContext names the context that kubectl would use.
func CurrentContext(kubeconfig string) (string, error) {
	found, err := filesOf(kubeconfig).Load()
	if err != nil {
		return "", fmt.Errorf("find the cluster: %w: %w; name a file: --kubeconfig FILE", spillway.ErrInvalid, err)
	}
	if found.CurrentContext == "" {
		return "", fmt.Errorf("there is no current context of kubectl; name one: --kube-context NAME: %w", spillway.ErrInvalid)
	}
	return found.CurrentContext, nil
}

// Remote reaches the API of a server that Install put into a cluster, as an http.RoundTripper: through the API server, by
// the rights of who asks, who needs to list pods, to create pods/portforward and to get the Secret spillway-token.
type Remote struct {
	conf      *rest.Config
	clients   kubernetes.Interface
	namespace string
	inner     *http.Transport

	mu    sync.Mutex
	token string // "" = not read yet
}

// NewRemote makes one; it does not connect yet.
func NewRemote(c *rest.Config, namespace string) (*Remote, error) {
	clients, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, explain("connect to the cluster", err)
	}
	r := &Remote{conf: c, clients: clients, namespace: namespace}
	r.inner = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.dial(ctx) }}
	return r, nil
}

// Place is what to call the server in messages.
func (r *Remote) Place() string { return "namespace " + r.namespace + " of " + r.conf.Host }

// RoundTrip sends a request to the server, with its token.
func (r *Remote) RoundTrip(request *http.Request) (*http.Response, error) {
	token, err := r.bearer(request.Context())
	if err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := r.inner.RoundTrip(request)
	if broken := (noForward{}); errors.As(err, &broken) {
		return nil, broken // without what net/http says before it
	}
	return answer, err
}

// bearer is the token of the server.
func (r *Remote) bearer(ctx context.Context) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.token != "" {
		return r.token, nil
	}
	secret, err := r.clients.CoreV1().Secrets(r.namespace).Get(ctx, tokenName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", r.missing(ctx)
	}
	if err != nil {
		return "", r.mayNot("read the Secret "+tokenName, err)
	}
	r.token = strings.TrimSpace(string(secret.Data[TokenKey]))
	if r.token == "" {
		return "", fmt.Errorf("the Secret %s in namespace %s has no %s: %w", tokenName, r.namespace, TokenKey, spillway.ErrInvalid)
	}
	return r.token, nil
}

// Check says why no command reaches the server: there is none, or who asks may not. nil = nothing is against it, or the
// cluster did not answer.
func (r *Remote) Check(ctx context.Context) error {
	_, err := r.bearer(ctx)
	if dial := (*net.OpError)(nil); errors.As(err, &dial) || ctx.Err() != nil {
		return nil
	}
	return err
}

// missing says why there is no server to be reached, as far as who asks may know it.
func (r *Remote) missing(ctx context.Context) error {
	d, err := r.clients.AppsV1().Deployments(r.namespace).Get(ctx, serverName, metav1.GetOptions{})
	if err == nil && d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
		return fmt.Errorf("the Spillway server in namespace %s has 0 replicas; have it run: spillway kube upgrade --namespace %[1]s --replicas 1: %w", r.namespace, spillway.ErrUnavailable)
	}
	installed := !apierrors.IsNotFound(err) // as far as it is known
	lease, err := r.clients.CoordinationV1().Leases(r.namespace).Get(ctx, leaseName, metav1.GetOptions{})
	if err == nil && !installed && holder(lease.Spec, time.Now()) != "" {
		return fmt.Errorf("the Spillway server of namespace %s runs outside the cluster, on %s: use it there, where spillway server --kubernetes was started: %w", r.namespace, holder(lease.Spec, time.Now()), spillway.ErrUnavailable)
	}
	return fmt.Errorf("there is no Spillway server in namespace %s at %s; install one: spillway kube install --namespace %s --registry HOST/PATH: %w", r.namespace, r.conf.Host, r.namespace, spillway.ErrUnavailable)
}

// mayNot names the right that lacks.
func (r *Remote) mayNot(what string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s: you may not: %w: %w; to use Spillway in namespace %s takes the rights to list pods, to create pods/portforward and to get the Secret %s",
			what, spillway.ErrDenied, err, r.namespace, tokenName)
	}
	return explain(what, err)
}

// dial connects to the API of a server that runs.
func (r *Remote) dial(ctx context.Context) (net.Conn, error) {
	pods, err := r.clients.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: serverLabel + "=" + r.namespace})
	if err != nil {
		return nil, r.mayNot("look for the server", err)
	}
	if len(pods.Items) == 0 {
		return nil, r.missing(ctx)
	}
	var failed error
	problem := ""
	for i := range pods.Items {
		pod := &pods.Items[i]
		if !ready(pod) || pod.DeletionTimestamp != nil {
			if p, _ := podProblem(pod); p != "" {
				problem = fmt.Sprintf(" (%s: %s)", pod.Name, p)
			}
			continue
		}
		conn, err := r.forward(ctx, pod)
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return nil, failed
	}
	return nil, fmt.Errorf("no server runs in namespace %s%s; see: kubectl get pods -n %s -l %s: %w", r.namespace, problem, r.namespace, serverLabel, spillway.ErrUnavailable)
}

// forward connects to the API within one pod.
func (r *Remote) forward(ctx context.Context, pod *corev1.Pod) (net.Conn, error) {
	transport, upgrader, err := spdy.RoundTripperFor(r.conf)
	if err != nil {
		return nil, err
	}
	url := r.clients.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url.String(), nil)
	if err != nil {
		return nil, err
	}
	link, _, err := spdy.Negotiate(upgrader, &http.Client{Transport: transport}, request, forwardProtocol)
	if err != nil {
		return nil, r.mayNot("forward a port to pod "+pod.Name, err)
	}
	conn := &forwarded{link: link, failed: make(chan string, 1), to: pod.Name}
	header := http.Header{} // filled by Set, which writes names as the other end reads them
	header.Set(corev1.PortHeader, strconv.Itoa(serverPort))
	header.Set(corev1.PortForwardRequestIDHeader, "0")
	header.Set(corev1.StreamType, corev1.StreamTypeError)
	faults, err := link.CreateStream(header)
	if err == nil {
		_ = faults.Close() // our half: nothing is written there
		header.Set(corev1.StreamType, corev1.StreamTypeData)
		conn.data, err = link.CreateStream(header)
	}
	if err != nil {
		return nil, errors.Join(explain("forward a port to pod "+pod.Name, err), link.Close())
	}
	// Owned by the connection; ends with its link, at the latest by Close; Read waits for it.
	go func() {
		text := make([]byte, 4096)
		n, _ := faults.Read(text) // the stream stays open after it, and that of the data too
		conn.failed <- string(text[:n])
		if n > 0 {
			_ = link.Close() // nothing will come
		}
	}()
	return conn, nil
}

// forwarded is one connection to a port of a pod.
type forwarded struct {
	link   httpstream.Connection
	data   httpstream.Stream
	failed chan string // why the pod could not be connected to; "" = it could
	to     string
	any    bool // something was read
}

// Read gives what the server sends. When nothing came, the error is why.
func (f *forwarded) Read(b []byte) (int, error) {
	n, err := f.data.Read(b)
	f.any = f.any || n > 0
	if err != nil && !f.any {
		_ = f.link.Close() // it is over, and the stream of errors ends
		if text := <-f.failed; text != "" {
			return n, noForward{f.to, text}
		}
	}
	return n, err
}

// noForward is why the port of a pod could not be connected to, as its node says it. It is an ErrUnavailable.
type noForward struct{ pod, text string }

// Error is in our words where the program or its pod is not there, which a node tells with paths and ids of its own.
func (e noForward) Error() string {
	for _, absent := range []string{"connection refused", "sandbox", "network namespace", "not running"} {
		if strings.Contains(e.text, absent) {
			return fmt.Sprintf("the Spillway server in pod %s is starting, or is gone; try again", e.pod)
		}
	}
	return fmt.Sprintf("pod %s: %s", e.pod, e.text)
}

func (e noForward) Unwrap() error { return spillway.ErrUnavailable }

// Write sends to the server.
func (f *forwarded) Write(b []byte) (int, error) { return f.data.Write(b) }

// Close ends the connection.
func (f *forwarded) Close() error { return f.link.Close() }

// place is an address that is none on a network.
type place string

func (p place) Network() string { return "kubernetes" }
func (p place) String() string  { return string(p) }

// LocalAddr is nothing that could be dialled.
func (f *forwarded) LocalAddr() net.Addr { return place("here") }

// RemoteAddr names the pod.
func (f *forwarded) RemoteAddr() net.Addr { return place(f.to) }

// SetDeadline does nothing: an http.Transport closes a connection that takes too long.
func (f *forwarded) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (f *forwarded) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (f *forwarded) SetWriteDeadline(time.Time) error { return nil }
