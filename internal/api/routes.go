package api

import (
	"net/http"

	"github.com/spillway-dev/spillway"
)

// route is one thing that can be asked. The OpenAPI document is made of the same table.
type route struct {
	method, path, summary string
	params                []param
	body                  any    // a value of what is sent as JSON; nil = nothing
	source                bool   // a gzipped tar is sent
	answer                any    // a value of what comes back
	lines                 bool   // as many lines of it as there are (NDJSON)
	status                int    // when it went well; 0 = 200
	events                bool   // also as server-sent events
	serve                 action // the handler
}

// action answers one request. What it returns is sent as JSON, unless it has written a stream.
type action func(s *Server, c *call) (answer any, err error)

// param is one parameter of the query.
type param struct{ name, kind, about string }

// streamed is the answer of an action that has written the answer itself.
type streamed struct{}

// routes is everything under /v1.
func routes() []route {
	follow := param{"follow", "boolean", "Go on with what comes, until the caller hangs up."}
	return []route{
		{method: "GET", path: "/v1/info", summary: "The server", answer: Info{}, serve: (*Server).info},
		{method: "GET", path: "/v1/apps", summary: "Every app, as it is now", answer: []spillway.Overview{}, serve: (*Server).apps},
		{method: "GET", path: "/v1/apps/{ref}", summary: "One app, as it is now", answer: spillway.Overview{}, serve: (*Server).overview},
		{method: "GET", path: "/v1/apps/{ref}/replicas", summary: "What runs of an app", answer: []spillway.Replica{}, serve: (*Server).replicas},
		{method: "GET", path: "/v1/apps/{ref}/releases", summary: "The releases of an app, newest first", answer: []spillway.Release{}, serve: (*Server).releases},
		{method: "GET", path: "/v1/apps/{ref}/releases/{release}", summary: "One release", answer: spillway.Release{}, serve: (*Server).release},
		{
			method: "GET", path: "/v1/apps/{ref}/events", summary: "The history of an app, oldest first",
			params: []param{
				{"since", "integer", "Only events with a higher ID. The header Last-Event-ID wins over it."},
				{"tail", "integer", "Only the newest so many; 0 = all."},
				{"limit", "integer", "At most so many at once; 0 = 1000."},
				follow,
			},
			answer: eventLine{}, lines: true, events: true, serve: (*Server).history,
		},
		{
			method: "GET", path: "/v1/apps/{ref}/who", summary: "Which release a user had at a time",
			params: []param{
				{"key", "string", "What the header or cookie that identifies users carries."},
				{"at", "string", "The time, as 2026-11-22T03:00:00Z; now when absent."},
			},
			answer: Who{}, serve: (*Server).who,
		},
		{method: "GET", path: "/v1/apps/{ref}/routes", summary: "What the proxy does with the requests to the hosts of an app", answer: []spillway.RouteLine{}, serve: (*Server).routeLines},
		{
			method: "POST", path: "/v1/apps/{ref}/routes/test", summary: "What would become of a request, which is not made",
			body: spillway.RouteQuery{}, answer: spillway.RouteAnswer{}, serve: (*Server).testRoute,
		},
		{method: "PUT", path: "/v1/apps/{ref}/hold", summary: "Let new requests to an app wait at the proxy; for 0, let them go on", body: HoldRequest{}, answer: spillway.Hold{}, serve: (*Server).hold},
		{
			method: "GET", path: "/v1/apps/{ref}/logs", summary: "What the replicas of an app wrote",
			params: []param{
				{"service", "string", "Only of this service."},
				{"replica", "string", "Only of this replica, such as www.4-2."},
				{"release", "integer", "Only of replicas of this release; 0 = all."},
				{"lines", "integer", "The newest so many of what is stored; 0 = 100."},
				follow,
			},
			answer: logLine{}, lines: true, serve: (*Server).logs,
		},
		{
			method: "POST", path: "/v1/apps/{ref}/intents", summary: "Ask something of an app: promote, pause, abort, rollback, scale and so on",
			body: spillway.Intent{}, answer: spillway.Intent{}, status: http.StatusAccepted, serve: (*Server).ask,
		},
		{
			method: "POST", path: "/v1/deploy", summary: "Build the source sent and ask for its release",
			params: deployParams(), source: true, answer: DeployLine{}, lines: true, serve: (*Server).deploy,
		},
		{
			method: "POST", path: "/v1/plan", summary: "Say what a deploy of the source sent would do",
			params: deployParams(), source: true, answer: spillway.Plan{}, serve: (*Server).plan,
		},
		{method: "GET", path: "/v1/doctor", summary: "What is well and what is not on this machine", answer: []spillway.Check{}, serve: (*Server).doctor},
		{method: "GET", path: "/v1/openapi.json", summary: "This document", answer: map[string]any{}, serve: (*Server).openAPI},
	}
}

func deployParams() []param {
	return []param{
		{"file", "string", "Path of the app file inside the source; spillway.yaml when absent."},
		{"env", "string", "Environment; production when absent."},
		{"strategy", "string", "Instead of the one in the file: " + join(spillway.Strategies) + "."},
		{"if_release", "integer", "Only when this is the newest release; 0 = always."},
		{"commit", "string", "Full hash of the commit that the source is."},
		{"dirty", "boolean", "The source differs from the commit."},
		{"note", "string", "Free text."},
		{"track", "string", "The track to deploy to; stable when absent."},
		{"not_before", "string", "Begin at this time, as 2026-11-22T03:00:00Z; as soon as it may when absent."},
		{"force", "boolean", "Begin in a freeze window too, and without the app's delay."},
		{"app", "string", "With from: the app. No source is sent then."},
		{"from", "string", "Take source and artefacts of what was released in this environment; nothing is built."},
		{"release", "integer", "With from: of this release; of the one that serves when absent."},
	}
}
