// Command bench measures Spillway's proxy beside others, in one run on one machine, and writes down what
// it found: README.md, results.json and cpu.svg. README.md says how, and how to read it.
//
// It knows load generators, proxies and their configurations, and /proc. Of Spillway it knows the program,
// the table and the control socket, as the server does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rounds         int
	seconds        time.Duration
	rate           float64
	cases, peers   string
	caddy, traefik string
	build          bool
	buildTime      time.Duration
	onlyBuild      string
	gate, report   bool
	note, out      string
	profile        string
	kube           kubeOptions
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	flag.DurationVar(&o.seconds, "seconds", 5*time.Second, "how long each measurement takes, after a second to warm up")
	flag.Float64Var(&o.rate, "rate", 5000, "requests a second of the case steady")
	flag.StringVar(&o.cases, "cases", "", "only these, with commas between (default all)")
	flag.StringVar(&o.peers, "peers", "", "only these, with commas between (default all)")
	flag.StringVar(&o.caddy, "caddy", "", "`PROGRAM` to measure as Caddy (default: built once, and kept in the user's cache)")
	flag.StringVar(&o.traefik, "traefik", "", "`PROGRAM` to measure as Traefik (as above)")
	flag.BoolVar(&o.build, "build", true, "build Caddy and Traefik where they are missing")
	flag.DurationVar(&o.buildTime, "build-time", 40*time.Minute, "how long building one of them may take")
	flag.StringVar(&o.onlyBuild, "only-build", "", "only build this one, caddy or traefik, where it is missing, and print where it is")
	flag.BoolVar(&o.gate, "gate", false, "only compare Spillway with httputil.ReverseProxy, and fail above the limits")
	flag.BoolVar(&o.report, "report", false, "only write README.md and cpu.svg again, from results.json")
	flag.StringVar(&o.note, "note", "", "a sentence about this run, for README.md")
	flag.StringVar(&o.out, "out", ".", "`DIRECTORY` of README.md, results.json and cpu.svg")
	flag.StringVar(&o.profile, "profile", "", "`DIRECTORY` for CPU profiles of Spillway; nothing else is written then")
	flag.StringVar(&o.kube.config, "kube", "", "measure controllers on the cluster of this kubeconfig `FILE` instead; it needs fake nodes, see README.md")
	flag.StringVar(&o.kube.registry, "kube-registry", "10.99.0.1:5000", "`HOST:PORT` of a registry for it, which speaks plain HTTP")
	flag.IntVar(&o.kube.apps, "kube-apps", 1000, "how many apps Spillway has in the end")
	flag.IntVar(&o.kube.compared, "kube-compared", 200, "how many of them are compared with Argo Rollouts")
	flag.IntVar(&o.kube.rounds, "kube-rounds", 3, "how often they change their image")
	flag.StringVar(&o.kube.spillway, "kube-spillway", "", "`PROGRAM` of Spillway (default: built from this repository)")
	flag.StringVar(&o.kube.argo, "kube-argo", "", "`PROGRAM` of Argo Rollouts (default: built once, and kept); none = leave it out")
	flag.Parse()

	runtime.LockOSThread() // see start
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.rounds < 1 || o.seconds < time.Second || o.rate <= 0 || flag.NArg() > 0 {
		return errors.New("-rounds is at least 1, -seconds at least 1s, -rate above 0, and there are no arguments")
	}
	if o.onlyBuild != "" {
		path, err := findBuilt(ctx, o, o.onlyBuild)
		if err == nil {
			fmt.Println(path)
		}
		return err
	}
	if o.report {
		r, err := readResults(filepath.Join(o.out, "results.json"))
		if err != nil {
			return err
		}
		return publish(o.out, r)
	}
	if o.kube.config != "" {
		return runKube(ctx, o)
	}
	if o.profile != "" {
		if o.profile, err = filepath.Abs(o.profile); err == nil {
			err = os.MkdirAll(o.profile, 0o755)
		}
		if err != nil {
			return err
		}
	}
	if o.gate {
		o.cases, o.peers = "small", "plain,spillway,spillway-general"
	}
	list, err := chosen(o.cases)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := prepare(ctx, o, dir)
	if err != nil {
		return err
	}
	backend, address, err := startBackend(ctx, filepath.Join(dir, "backend"))
	if err != nil {
		return err
	}
	defer backend.end()
	b.backend = address
	if err := b.run(ctx, list); err != nil {
		return err
	}
	if o.profile != "" {
		return nil
	}
	if o.gate {
		return passes(os.Stdout, *b.results)
	}
	if err := b.results.save(filepath.Join(o.out, "results.json")); err != nil {
		return err
	}
	return publish(o.out, *b.results)
}

// prepare builds what is built and finds what is found.
func prepare(ctx context.Context, o options, dir string) (*bench, error) {
	if err := needed(); err != nil {
		return nil, err
	}
	peers, err := findPeers(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	b := &bench{
		dir: dir, peers: peers, rounds: o.rounds, seconds: o.seconds, rate: o.rate,
		progress: func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
		results: &results{
			Date: time.Now().UTC().Format(time.RFC3339), Commit: commit(ctx), Note: o.note, Machine: thisMachine(),
			Versions: toolVersions(ctx), Rounds: o.rounds, Seconds: o.seconds.Seconds(), Rate: o.rate,
			Measurements: []measurement{}, Unmeasured: []unmeasured{},
		},
	}
	for _, name := range everyPeer() {
		switch p := peers[name]; {
		case p == nil:
		case p.missing != "":
			b.progress("%s could not be measured: %s", name, p.missing)
			b.results.Unmeasured = append(b.results.Unmeasured, unmeasured{Peer: name, Reason: b.anonymous(p.missing)})
		case p.version != "":
			b.results.Versions[name] = p.version
		}
	}
	b.cert, b.key, b.pair, err = certify(dir)
	return b, err
}

// chosen are the cases with the names given, or all.
func chosen(names string) ([]testCase, error) {
	all := cases()
	if names == "" {
		return all, nil
	}
	var list []testCase
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(all, func(c testCase) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no case %q", name)
		}
		list = append(list, all[i])
	}
	return list, nil
}

// needed says which Debian packages to install; nothing can be measured without them. Nothing is
// installed here.
func needed() error {
	var missing []string
	for _, need := range [][2]string{{"wrk", "wrk"}, {"nginx", "nginx-light"}} {
		if _, ok := program(need[0]); !ok {
			missing = append(missing, need[1])
		}
	}
	if missing != nil {
		return fmt.Errorf("missing programs; on Debian: apt-get install %s", strings.Join(missing, " "))
	}
	return nil
}

// passes is the gate.
func passes(w io.Writer, r results) error {
	failed := false
	for _, g := range []struct {
		peer  string
		limit float64
	}{{"spillway", gateDefault}, {"spillway-general", gateGeneral}} {
		list := r.ratios(subject{g.peer, "small"}, subject{"plain", "small"}, cpuOf)
		value := median(list)
		good := len(list) > 0 && value <= g.limit
		failed = failed || !good
		fmt.Fprintf(w, "%-17s %.2f of the CPU per request of httputil.ReverseProxy, %.2f allowed (rounds: %.2f)\n", g.peer, value, g.limit, list)
	}
	if failed {
		return errors.New("the gate is closed: a request costs too much CPU")
	}
	return nil
}

// commit is the one that is measured, or "" outside a repository.
func commit(ctx context.Context) string {
	out, err := output(ctx, 10*time.Second, "git", "describe", "--always", "--dirty", "--exclude=*")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}
