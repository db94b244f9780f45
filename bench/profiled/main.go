// Command profiled is Spillway's proxy as "spillway proxy" runs it, under the CPU profiler: for -profile.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"

	"github.com/spillway-dev/spillway/internal/proxy"
)

func main() {
	var config proxy.Config
	dir := flag.String("dir", "", "state `DIRECTORY`")
	flag.StringVar(&config.HTTP, "http", "", "`ADDR` to serve HTTP at")
	flag.StringVar(&config.HTTPS, "https", "", "`ADDR` to serve HTTPS at")
	to := flag.String("profile", "", "`FILE` for the profile, complete when the process has ended")
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil { // after the word proxy
		log.Fatal(err)
	}
	config.Dir, config.Engine = filepath.Join(*dir, "proxy"), os.Getenv("SPILLWAY_ENGINE")
	if err := run(config, *to); err != nil {
		log.Fatal(err)
	}
}

func run(config proxy.Config, to string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	err = proxy.Run(ctx, config)
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	return f.Close()
}
