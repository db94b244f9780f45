package spillway

// RouteLine is one line of what the data plane does with the requests to a host: a rule, or what is left for the
// service that has the host. The lines of a host are in the order in which they are tried.
type RouteLine struct {
	App   Ref        `json:"app"`
	Host  string     `json:"host"`
	Match string     `json:"match"`           // "POST /api/* header X-Beta=1", "/*" for any request
	To    []RouteLeg `json:"to,omitempty"`    // none: the data plane answers by itself
	Does  []string   `json:"does,omitempty"`  // "timeout 10s", "302 to https://shop.example.com"
	Rest  bool       `json:"rest,omitempty"`  // no rule: the host is the service's
	Rules []Rule     `json:"rules,omitempty"` // of Rest: requests that belong to a track
}

// RouteLeg is one place where the requests of a line go.
type RouteLeg struct {
	Name     string    `json:"name"`  // Target.Name, or the service
	Share    Share     `json:"share"` // of the users of the line
	Only     string    `json:"only,omitempty"`
	Backends []Backend `json:"backends,omitempty"` // with their weights as they are served
	Closed   string    `json:"closed,omitempty"`   // why there are none
}

// RouteQuery is a request that is looked at and not made.
type RouteQuery struct {
	Method string        `json:"method"` // "GET"
	URL    string        `json:"url"`    // "http://shop.example.com/api/x?y=z"
	Header []HeaderField `json:"header,omitempty"`
	Key    string        `json:"key,omitempty"`    // what the cohort's header or cookie would carry; "" = what Header says
	Client string        `json:"client,omitempty"` // the address that it would come from; "" = one that no rule knows
}

// RouteAnswer is what would become of a request.
type RouteAnswer struct {
	App    Ref         `json:"app,omitempty"`
	Line   *RouteLine  `json:"line,omitempty"` // that counts; nil = nobody answers to the host, or no rule fits
	Passed []RoutePass `json:"passed,omitempty"`
	Status int         `json:"status,omitempty"` // the data plane answers by itself, so
	Text   string      `json:"text,omitempty"`   // and why, or where the client is sent
	Key    bool        `json:"key"`              // the request says who its user is; else Bucket is one of many
	Bucket Share       `json:"bucket"`
	Leg    *RouteLeg   `json:"leg,omitempty"`     // where the user goes
	Got    *Backend    `json:"backend,omitempty"` // and who answers there; nil with Status or when it is closed
	Why    string      `json:"why,omitempty"`     // of Got: "bucket 12 is below 5%", "cookie beta=1"
	Notes  []string    `json:"notes,omitempty"`   // what else the answer depends on, a sentence each
	Asked  string      `json:"asked,omitempty"`   // what the service is asked for: "shop.example.com/v2/x?y=z"
}

// RoutePass is a line that a request does not go by, and why.
type RoutePass struct {
	Host  string `json:"host"`
	Match string `json:"match"`
	Why   string `json:"why"`
}
