package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// demoWebCommand is the program that demo deploys: both of its tiers.
func (c *cli) demoWebCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "_demo",
		Short:  "The program that demo deploys",
		Hidden: true,
		Args:   atMost(0, ""),
		RunE:   func(cmd *cobra.Command, _ []string) error { return demoWeb(cmd.Context(), c.getenv) },
	}
}

// demoWeb serves until ctx ends, and then finishes its requests.
func demoWeb(ctx context.Context, getenv func(string) string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if getenv("FAIL") != "" {
			http.Error(w, "failing on purpose", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%s %s\n", getenv("SPILLWAY_REPLICA"), getenv("GREETING"))
		if backend := getenv("BACKEND_URL"); backend != "" {
			if err := relay(r.Context(), w, backend); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: demoTimeout}
	listener, err := net.Listen("tcp", net.JoinHostPort(getenv("HOST"), getenv("PORT")))
	if err != nil {
		return err
	}
	stopped := make(chan error, 1)
	// Ends after ctx, when the last request is answered; waited for below.
	context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		stopped <- server.Shutdown(last)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// relay adds the answer of the tier behind.
func relay(ctx context.Context, w io.Writer, url string) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(w, answer.Body)
	return err
}
