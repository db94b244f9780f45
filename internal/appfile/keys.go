package appfile

import (
	"fmt"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
)

// minimal is the smallest app file, for people who have none.
const minimal = `app: shop
services:
  web:
    run: ./web --port $PORT
    host: shop.localhost
`

// Defaults that the root package does not name.
var (
	defaultSurge       = spillway.Count{Share: spillway.Percent(25)}
	defaultUnavailable = spillway.Count{}
)

const (
	defaultScale    = 1
	defaultStrategy = spillway.Rolling
	defaultThin     = spillway.ThinPause
)

const (
	day   = 24 * time.Hour
	month = 30 * day
)

// fileShape is the whole file.
func fileShape() objectShape {
	service := serviceShape()
	file := objectShape{name: "a mapping that begins with app: NAME", keys: []key{
		{name: "app", required: true, example: "shop", shape: label("a name of 1 to 40 lower-case letters, digits and -", 40),
			doc: "The name of the app: a DNS label of at most 40 characters."},
		{name: "services", required: true, example: "{web: {run: ./web --port $PORT, host: shop.localhost}}",
			shape: dictShape{name: "a mapping of services", keyName: "a service's name", pattern: labelPattern(30),
				keyHint: "use 1 to 30 lower-case letters, digits and -", of: service, example: "{run: ./web --port $PORT}", min: 1, max: 100},
			doc: "The components of the app, by name: DNS labels of at most 30 characters."},
		{name: "cohort", example: "{key: [header X-Account-Id, cookie _ACCOUNT]}", shape: cohortShape(),
			doc: "What identifies a user, so that each user stays with one release while it is tried."},
		{name: "budget", example: "20", value: spillway.DefaultBudget, shape: budgetShape(),
			doc: "How many failed requests a rollout may cost before it is rolled back, or the share of the users who may have one: 0.1% of users."},
		{name: "watch", example: "10m", value: spillway.DefaultWatch.String(), shape: durationShape{0, month},
			doc: "How long the old release stays warm, and the judge watches on, after the new one has all traffic; 0 is not at all."},
		{name: "deadline", example: "10m", value: spillway.DefaultDeadline.String(), shape: durationShape{time.Second, month},
			doc: "The longest stay in one step of a rollout beyond its hold."},
		{name: "gates", example: `["errors < 2x stable", "p95 < 300ms", "restarts == 0"]`, shape: fewShape{listShape{gateShape()}, 100},
			doc: "Conditions that a rollout must keep: METRIC OP VALUE [for WINDOW], with the metrics errors, latency, p50, p75, p90, p95, p99 (Nx stable, N% or a duration), rps, restarts, cpu and memory; or query: PROMQL OP VALUE, http: URL, run: COMMAND."},
		{name: "thin", example: "pause", value: string(defaultThin), shape: choiceShape{string(spillway.ThinPause), string(spillway.ThinPromote)},
			doc: "What to do when a step had too few requests to judge by its deadline: pause and wait for a person, or promote."},
		{name: "warmup", example: "30s", value: "0s", shape: durationShape{0, day},
			doc: "How long a new release may be slow at first: its answers in this time are no evidence about its latency."},
		{name: "delay", example: "30s", value: "0s", shape: durationShape{0, day},
			doc: "How long a deploy waits before it begins, so that it can be cancelled."},
		{name: "freeze", example: `["Fri 16:00 - Mon 08:00 Europe/Berlin", "2026-12-24 00:00 - 2026-12-27 00:00"]`, shape: fewShape{listShape{windowShape()}, 100},
			doc: "When no deploy begins unless it is forced: every week from one time to another, or once from one date to another, in UTC or the time zone named. Rollbacks always may."},
		{name: "keep", example: "50", value: spillway.DefaultKeep, shape: wholeShape{"a number of releases", 1, 10_000},
			doc: "How many releases are kept besides those in use."},
		{name: "prometheus", example: "http://127.0.0.1:9090", shape: baseURL(),
			doc: "The base URL of the metric store that gates with query ask."},
		routesKey(),
		{name: "flags"}, {name: "alerts"}, {name: "pipeline"},
	}}
	file.keys = append(file.keys, environmentsKey(file))
	file.elsewhere = func(name string) string {
		if slices.ContainsFunc(service.keys, func(k key) bool { return k.name == name }) {
			return "a service: services.NAME." + name
		}
		return ""
	}
	return file
}

// serviceShape is one service.
func serviceShape() objectShape {
	service := objectShape{name: "a mapping with at least run: COMMAND", either: []string{"run", "image"}}
	service.keys = slices.Concat(processKeys(), rolloutKeys(), edgeKeys())
	service.elsewhere = func(name string) string {
		if slices.Contains([]string{"app", "cohort", "budget", "watch", "deadline", "gates", "thin", "warmup", "delay", "freeze", "keep", "prometheus", "routes", "environments"}, name) {
			return "the app as a whole: write it at the beginning of a line, beside app and services"
		}
		return ""
	}
	return service
}

// processKeys are the keys of a service about what runs and how it is reached.
func processKeys() []key {
	var protocols choiceShape
	for _, p := range spillway.Protocols {
		protocols = append(protocols, string(p))
	}
	return []key{
		{name: "build", example: "./web", shape: anyShape{buildDir(), buildShape()},
			doc: "The directory that the service is built from, or a mapping with dir and command. Without a command, go.mod means go build and package.json means npm ci. Without build, the service runs in the app's directory as it is."},
		{name: "run", example: "./web --port $PORT", shape: commandShape(),
			doc: "What starts a replica: a line for the shell, or a list of a program and its arguments. It must listen on $HOST and $PORT. Without it, an image runs its own command."},
		{name: "image", example: "postgres:17", shape: imageText(),
			doc: "An image to run instead of something that is built, for servers on Kubernetes. Each deploy pins what its tag means by digest."},
		{name: "port", example: "8080", shape: wholeShape{"a port", 1, 65535},
			doc: "Where the program in the container listens; a service with an image needs it if anybody connects to it. For a process it is $PORT on Kubernetes (8080 without it); on one machine Spillway chooses free ports."},
		{name: "host", example: "shop.example.com", shape: anyShape{wildHostText(), listShape{wildHostText()}},
			doc: "The public names of the service, or *.example.com for all below one. Without any it is private to the app, unless routes lead to it."},
		{name: "needs", example: "[backend]", shape: listShape{label("a service's name", 30)},
			doc: "Services whose address this one is given, as NAME_HOST, NAME_PORT and NAME_URL."},
		{name: "env", example: "{LOG_LEVEL: info}", shape: envShape(),
			doc: "Environment variables. Values are used as they are written."},
		{name: "health", example: "/healthz", shape: anyShape{pathText(), healthShape()},
			doc: "How to see that a replica is ready: a path that answers 200 to 399, or a mapping. It is asked for in the service's protocol: HTTP/2 for h2c and grpc. Without it, the port must accept connections, which is what fits most servers of gRPC."},
		{name: "scale", example: "3", value: defaultScale, shape: anyShape{wholeShape{"a number of replicas", 1, 1000}, scaleShape()},
			doc: "How many replicas run, or between which numbers they may be scaled: {min: 2, max: 12}."},
		{name: "limits", example: "{cpu: 1, memory: 512Mi}", shape: limitsShape(),
			doc: "What one replica may use."},
		{name: "stop", example: "{grace: 30s}", shape: stopShape(),
			doc: "How a replica is stopped."},
		{name: "release", example: "./migrate", shape: commandShape(),
			doc: "What is run once per rollout, before a replica of a release that changed the service starts. When it fails, nothing was changed. It is not run on the way back."},
		{name: "protocol", example: "tcp", value: string(spillway.HTTP), shape: protocols,
			doc: "What the service speaks: http (HTTP/1.1), h2c (HTTP/2 without TLS), grpc, or tcp: connections that are passed through as they are."},
		{name: "listen", example: `":6379"`, shape: anyShape{addressText(), listShape{addressText()}},
			doc: "Protocol tcp: where users reach the service, as :PORT or IP:PORT. Without it, it is private to the app."},
		{name: "proxy_protocol", example: "v2", shape: choiceShape{string(spillway.AnnounceV1), string(spillway.AnnounceV2)},
			doc: "Protocol tcp: each connection to a replica begins with a header of the PROXY protocol, in this version, that says who the client is."},
		{name: "secrets"}, {name: "volumes"},
	}
}

// rolloutKeys are the keys of a service about how a new release takes over.
func rolloutKeys() []key {
	var strategies choiceShape
	for _, s := range spillway.Strategies {
		strategies = append(strategies, string(s))
	}
	return []key{
		{name: "strategy", example: "canary", value: string(defaultStrategy), shape: strategies,
			doc: "How a new release takes over: rolling (replica by replica), canary (by steps, each judged), blue-green (a full second set, then one switch), recreate (stop, then start: there is a gap)."},
		{name: "steps", example: "[1%, 5% 2m, pause, 25% 10m]", shape: listShape{stepText()},
			doc: "The steps of a canary: a share of the users and the shortest stay, or pause to wait for a person. Shares rise."},
		{name: "surge", example: "25%", value: defaultSurge.String(), shape: countShape(),
			doc: "Rolling: how many replicas may run above scale, as a number or a share."},
		{name: "unavailable", example: "0", value: defaultUnavailable.N, shape: countShape(),
			doc: "Rolling: how many replicas may be missing, as a number or a share."},
	}
}

func buildShape() objectShape {
	return objectShape{name: "a mapping with dir and command", keys: []key{
		{name: "dir", example: "./web", value: ".", shape: buildDir(),
			doc: "The directory, relative to the app file and inside its directory."},
		{name: "command", example: "make", shape: commandShape(),
			doc: "What builds it, run in a clean copy of the directory: a line for the shell, or a list of a program and its arguments."},
		{name: "dockerfile", example: "use command and run"}, {name: "output", example: "what the command leaves in dir is what runs"},
	}}
}

func commandShape() shape {
	return anyShape{filledText("a command"), listShape{anyShape{wordText(), literalShape{}}}}
}

func envShape() dictShape {
	return dictShape{name: "a mapping of names to values", keyName: "a variable's name", pattern: envName,
		keyHint: "use letters, digits and _, and no digit first", problem: reservedEnv,
		of: anyShape{wordText(), literalShape{}}, data: true, example: `""`}
}

func healthShape() objectShape {
	d := spillway.DefaultProbe()
	return objectShape{name: "a mapping", keys: []key{
		{name: "path", example: "/healthz", shape: pathText(), doc: "The path that must answer 200 to 399. Without it, the port must accept connections."},
		{name: "interval", example: "2s", value: d.Interval.String(), shape: durationShape{100 * time.Millisecond, time.Hour}, doc: "Between two probes of a ready replica."},
		{name: "timeout", example: "1s", value: d.Timeout.String(), shape: durationShape{10 * time.Millisecond, time.Hour}, doc: "The longest wait for an answer."},
		{name: "start", example: "60s", value: d.Start.String(), shape: durationShape{time.Second, day}, doc: "How long a replica may take to become ready before it is restarted."},
		{name: "healthy", example: "1", value: d.Healthy, shape: wholeShape{"a number of probes", 1, 100}, doc: "Successes in a row until a replica is ready."},
		{name: "unhealthy", example: "3", value: d.Unhealthy, shape: wholeShape{"a number of probes", 1, 100}, doc: "Failures in a row until a replica is not ready, and restarted."},
		{name: "port", example: "the probe uses $PORT"}, {name: "command", example: "use path"},
	}}
}

func limitsShape() objectShape {
	return objectShape{name: "a mapping with cpu and memory", keys: []key{
		{name: "cpu", example: "0.5", shape: amountShape{"an amount of CPU like 1, 0.5 or 250m", cpuAmount, parseCPU}, doc: "Cores: 1, 0.5, 250m."},
		{name: "memory", example: "512Mi", shape: amountShape{"an amount of memory like 512Mi or 1Gi", memoryAmount, parseMemory}, doc: "Bytes: 512Mi, 1Gi, 500M. At least 1Mi."},
	}}
}

func stopShape() objectShape {
	d := spillway.DefaultStop()
	return objectShape{name: "a mapping with signal, grace and drain", keys: []key{
		{name: "signal", example: "SIGTERM", value: d.Signal, shape: choiceShape{"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"}, doc: "The signal that asks a replica to end."},
		{name: "grace", example: "30s", value: d.Grace.String(), shape: durationShape{0, day}, doc: "From the signal until the replica is killed."},
		{name: "drain", example: "30s", value: d.Drain.String(), shape: durationShape{0, day}, doc: "The longest wait for open requests before the signal; 250ms by default where protocol is tcp and strategy recreate. On Kubernetes it is waited out, for 3 s at least, 1 s for tcp."},
	}}
}

func cohortShape() objectShape {
	return objectShape{name: "a mapping with key", keys: []key{
		{name: "key", required: true, example: "[header X-Account-Id, cookie _ACCOUNT]", shape: anyShape{keySourceText(), listShape{keySourceText()}},
			doc: "Where a request says who the user is: header NAME or cookie NAME. The first that a request carries counts; one with none gets a cookie from Spillway."},
	}}
}

// countShape is a number of replicas or a share of them.
func countShape() shape {
	return anyShape{wholeShape{"a number of replicas", 0, 1000}, textShape{name: `a share like "25%"`, pattern: shareText, problem: tooMuch}}
}

// tooMuch says that a share is above everything.
func tooMuch(text string) (problem, hint string) {
	if shareText.MatchString(text) {
		if _, err := spillway.ParseShare(text); err != nil {
			return fmt.Sprintf("%s is more than 100%%", text), ""
		}
	}
	return "", ""
}
