package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/spillway-dev/spillway/internal/kube"
)

// cluster is an API server that is spoken to as an administrator, in plain JSON.
type cluster struct {
	http *http.Client
	at   *url.URL
}

func openCluster(kubeconfig string) (*cluster, error) {
	config, _, err := kube.Connect(kubeconfig, "", "")
	if err != nil {
		return nil, err
	}
	config.UserAgent = "bench" // who a spec was written by is told by it
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(config.Host)
	return &cluster{c, at}, err
}

// The formats in which something is sent to be written.
const (
	plainJSON  = "application/json"
	mergePatch = "application/merge-patch+json"
	applyPatch = "application/apply-patch+yaml" // JSON is YAML
)

// do sends one request, and reads the answer into a value when there is one. PATCH is by the format that is named.
func (c *cluster) do(ctx context.Context, method, path, format string, body, into any) error {
	answer, err := c.open(ctx, method, path, format, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if into == nil {
		_, err = io.Copy(io.Discard, answer)
		return err
	}
	return json.NewDecoder(answer).Decode(into)
}

func (c *cluster) open(ctx context.Context, method, path, format string, body any) (io.ReadCloser, error) {
	text, ok := body.(string)
	if !ok && body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.at.Scheme+"://"+c.at.Host+path, strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", format)
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= 300 {
		defer answer.Body.Close()
		said, _ := io.ReadAll(io.LimitReader(answer.Body, 2000)) // for the message only
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(said))
	}
	return answer.Body, nil
}

// apply makes an object be there as it is given. Its path is that of the object.
func (c *cluster) apply(ctx context.Context, path string, object any) error {
	return c.do(ctx, http.MethodPatch, path+"?fieldManager=bench&force=true", applyPatch, object, nil)
}

// await watches a collection until done was true for as many objects as are wanted, each at any time. It gives when
// each was.
func (c *cluster) await(ctx context.Context, collection string, wanted int, done func(object map[string]any) bool) (map[string]time.Time, error) {
	at := map[string]time.Time{}
	for ctx.Err() == nil {
		stream, err := c.open(ctx, http.MethodGet, collection+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", plainJSON, nil)
		if err != nil {
			return at, err
		}
		for events := json.NewDecoder(stream); len(at) < wanted; {
			var event struct {
				Type   string         `json:"type"`
				Object map[string]any `json:"object"`
			}
			if events.Decode(&event) != nil {
				break // the API server ends watches now and then
			}
			name := textAt(event.Object, "metadata", "name")
			if name != "" && at[name].IsZero() && event.Type != "DELETED" && done(event.Object) {
				at[name] = time.Now()
			}
		}
		stream.Close()
		if len(at) >= wanted {
			return at, nil
		}
	}
	return at, fmt.Errorf("%d of %d in %s: %w", len(at), wanted, collection, ctx.Err())
}

// valueAt follows names into an object; nil when there is nothing.
func valueAt(object map[string]any, names ...string) any {
	var value any = object
	for _, name := range names {
		m, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = m[name]
	}
	return value
}

func textAt(object map[string]any, names ...string) string {
	s, _ := valueAt(object, names...).(string)
	return s
}

func numberAt(object map[string]any, names ...string) float64 {
	n, _ := valueAt(object, names...).(float64)
	return n
}

// each runs a function for the numbers from first to last, eight at a time, and gives the first error.
func each(first, last int, do func(n int) error) error {
	numbers := make(chan int)
	var workers sync.WaitGroup
	var once sync.Once
	var failed error
	for range 8 {
		// Owned by each; ends with the numbers; waited for below.
		workers.Go(func() {
			for n := range numbers {
				if err := do(n); err != nil {
					once.Do(func() { failed = err })
				}
			}
		})
	}
	for n := first; n <= last; n++ {
		numbers <- n
	}
	close(numbers)
	workers.Wait()
	return failed
}
