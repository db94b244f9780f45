//go:build kube

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// door is a way to a server that counts who goes through and that a test can shut: connections are refused then, and
// open ones end, as when the server were not there.
type door struct {
	t       *testing.T
	address string // its own: "127.0.0.1:14312"
	proxy   *httputil.ReverseProxy

	mu     sync.Mutex
	server *http.Server
	served chan struct{}    // closed when server has ended
	writes map[string]int64 // by method and kind of thing: "PATCH apps/status"
	reads  int64
	hidden string // an API group that is not known: "spillway.dev"; "" = none
}

// openDoor opens a door to a server.
func openDoor(t *testing.T, to *url.URL, transport http.RoundTripper) *door {
	t.Helper()
	d := &door{t: t, address: freeAddress(t), writes: map[string]int64{}, proxy: httputil.NewSingleHostReverseProxy(to)}
	d.proxy.ModifyResponse = d.without
	d.proxy.Transport, d.proxy.FlushInterval, d.proxy.ErrorLog = transport, -1, log.New(io.Discard, "", 0)
	d.open()
	t.Cleanup(d.shut)
	return d
}

// metricsDoor leads to the metrics of the gateway.
func metricsDoor(t *testing.T) (*door, string) {
	t.Helper()
	to, err := url.Parse(gatewayMetrics())
	if err != nil {
		t.Fatal(err)
	}
	path := to.Path
	to.Path = ""
	d := openDoor(t, to, nil)
	return d, "http://" + d.address + path
}

// apiDoor leads to the API server, as the administrator; the file says how to go through it.
func apiDoor(t *testing.T) (d *door, kubeconfig string) {
	t.Helper()
	config, err := access()
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	d = openDoor(t, to, transport)
	return d, writeConfig(t, clientcmdapi.Cluster{Server: "http://" + d.address}, clientcmdapi.AuthInfo{})
}

// writeConfig writes a kubeconfig with one cluster and one user.
func writeConfig(t *testing.T, to clientcmdapi.Cluster, user clientcmdapi.AuthInfo) string {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["it"], c.AuthInfos["it"] = &to, &user
	c.Contexts["it"] = &clientcmdapi.Context{Cluster: "it", AuthInfo: "it"}
	c.CurrentContext = "it"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func (d *door) open() {
	d.t.Helper()
	l, err := net.Listen("tcp", d.address)
	if err != nil {
		d.t.Fatal(err)
	}
	server, served := &http.Server{Handler: d}, make(chan struct{})
	d.mu.Lock()
	d.server, d.served = server, served
	d.mu.Unlock()
	// Owned by the door; ends with the server, which shut closes; shut waits for it.
	go func() { server.Serve(l); close(served) }()
}

// shut refuses everybody until open. It may be called again.
func (d *door) shut() {
	d.mu.Lock()
	server, served := d.server, d.served
	d.server = nil
	d.mu.Unlock()
	if server != nil {
		server.Close()
		<-served
	}
}

// ServeHTTP counts a request and passes it on.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		d.reads++
	} else {
		d.writes[r.Method+" "+thing(r.URL.Path)]++
	}
	hidden := d.hidden
	d.mu.Unlock()
	switch {
	case hidden != "" && r.URL.Path == "/apis":
		r.Header.Set("Accept", "application/json") // the groups alone, so that each is asked for by itself
		r.Header.Del("Accept-Encoding")
	case hidden != "" && strings.HasPrefix(r.URL.Path, "/apis/"+hidden+"/"), r.URL.Path == "/apis/"+hidden && hidden != "":
		notFound(w)
		return
	}
	d.proxy.ServeHTTP(w, r)
}

// hide makes an API group unknown to whoever goes through, as when nobody had installed it.
func (d *door) hide(group string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hidden = group
}

// without takes the hidden group out of the list of all.
func (d *door) without(answer *http.Response) error {
	d.mu.Lock()
	hidden := d.hidden
	d.mu.Unlock()
	if hidden == "" || answer.Request.URL.Path != "/apis" || answer.StatusCode != http.StatusOK {
		return nil
	}
	var groups metav1.APIGroupList
	if err := json.NewDecoder(answer.Body).Decode(&groups); err != nil {
		return err
	}
	answer.Body.Close()
	groups.Groups = slices.DeleteFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == hidden })
	text, err := json.Marshal(groups)
	if err != nil {
		return err
	}
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	answer.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}

// wrote gives the writes so far by method and kind, without those of leases: who leads says so every two seconds, and
// it is the one thing that is written when nothing happens.
func (d *door) wrote() map[string]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string]int64{}
	for what, n := range d.writes {
		if !strings.HasSuffix(what, " leases") {
			all[what] = n
		}
	}
	return all
}

// read is how many requests only asked.
func (d *door) read() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reads
}

// thing is what a path of the API server is about: "apps/status" of
// /apis/spillway.dev/v1alpha1/namespaces/x/apps/castle/status.
func thing(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, p := range parts {
		if p != "namespaces" || i+2 >= len(parts) {
			continue
		}
		rest := parts[i+2:]
		if len(rest) > 2 {
			return rest[0] + "/" + rest[2]
		}
		return rest[0]
	}
	return path
}
