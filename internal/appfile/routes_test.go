package appfile_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
)

// Each row is the rules of a file, from its line 5 on, and what is said about them.
func TestWarnings_NameRulesThatNeverCount(t *testing.T) {
	const base = "app: shop\nservices:\n  web: {run: x, host: [a.example.com, b.example.com]}\nroutes:\n%s"
	for _, row := range []struct{ rules, want string }{
		{"  - {path: /a/*, to: web}\n  - {path: /b/*, to: web}\n", ""},
		{"  - {path: /a, to: web}\n  - {path: /a/*, to: web}\n", ""},
		{"  - {path: /a/*, to: web}\n  - {path: /a/b, to: web}\n", ""}, // the longer one goes first
		{"  - {path: /a, to: web}\n  - {path: /a, to: web}\n",
			"a.yaml:6:5: routes[1]: the rule for a.example.com,b.example.com/a never counts: that for a.example.com,b.example.com/a in line 5 takes all of its requests; remove one, or make the other fit less"},
		{"  - {path: /a, method: POST, to: web}\n  - {path: /a, to: web}\n", ""},
		{"  - {path: /a, to: web}\n  - {path: /a, method: POST, to: web}\n", ""},
		{"  - {host: a.example.com, path: /a, to: web}\n  - {path: /a, to: web}\n", ""}, // it counts on b
		{"  - {path: /a, to: web}\n  - {host: a.example.com, path: /a, to: web}\n",
			"a.yaml:6:5: routes[1]: the rule for a.example.com/a never counts: that for a.example.com,b.example.com/a in line 5 takes all of its requests; remove one, or make the other fit less"},
		{"  - {path: /*, to: web}\n  - {path: '~ ^/v[0-9]', to: web}\n", ""}, // what is for all paths is for what is left
		{"  - {path: '~ ^/v[0-9]', to: web}\n  - {path: /v/*, to: web}\n", ""},
		{"  - {path: '~ ^/v/[0-9]', to: web}\n  - {path: /v/*, to: web}\n",
			"a.yaml:5:5: routes[0]: the rule for a.example.com,b.example.com ~ ^/v/[0-9] never counts: that for a.example.com,b.example.com/v/* in line 6 takes all of its requests; remove one, or make the other fit less"},
		{"  - {path: /*, to: web}\n  - {header: X-Beta=1, to: web}\n", ""},
		{"  - {to: web}\n  - {path: /*, to: web}\n",
			"a.yaml:6:5: routes[1]: the rule for a.example.com,b.example.com/* never counts: that for a.example.com,b.example.com/* in line 5 takes all of its requests; remove one, or make the other fit less"},
		{"  - {to: web}\n  - {path: '~ ^/v[0-9]', to: web}\n", ""},
		{"  - {path: /a, method: [GET, POST], to: web}\n  - {path: /a, method: POST, header: X=1, to: web}\n", ""},
		{"  - {path: /a, header: X=1, to: web}\n  - {path: /a, header: Y=1, to: web}\n", ""},
	} {
		got := appfile.Warnings("a.yaml", fmt.Appendf(nil, base, row.rules), "")
		text := ""
		if len(got) > 0 {
			text = got.Error()
		}
		if text != row.want {
			t.Errorf("%s\ngot  %s\nwant %s", row.rules, text, row.want)
		}
	}
}

// Each row is the service api and the rules of a file.
func TestWarnings_NameARuleThatIsForTheHostOfItsServiceAlone(t *testing.T) {
	const noted = "a.yaml:6:5: routes[0]: the rule for api.example.com/api/* changes nothing: without host it is for the hosts of api, which gets their requests anyway; write host: shop.example.com"
	const api = "  api: {run: x, host: api.example.com}\n"
	for _, row := range []struct{ api, rules, want string }{
		{api, "  - {path: /api/*, to: api}\n", noted},
		{"  api: {run: x}\n", "  - {path: /api/*, to: api}\n", ""}, // it is for all hosts
		{api, "  - {path: /api/*, to: api, host: shop.example.com}\n", ""},
		{api, "  - {path: /api/*, to: api, timeout: 5s}\n", ""},
		{api, "  - {path: /api/*, to: api}\n  - {path: /*, host: api.example.com, to: web}\n", ""}, // an exception from the other
		{api, "  - {path: /api/*, to: [{to: api, weight: 1}, {to: web, weight: 1}]}\n", ""},
		{api, "  - {path: /api/*, redirect: {scheme: https}}\n", ""},
	} {
		text := "app: shop\nservices:\n  web: {run: x, host: shop.example.com}\n" + row.api + "routes:\n" + row.rules
		if _, err := appfile.Parse("a.yaml", []byte(text)); err != nil {
			t.Fatal(err)
		}
		got := ""
		if list := appfile.Warnings("a.yaml", []byte(text), ""); len(list) > 0 {
			got = list.Error()
		}
		if got != row.want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, row.want)
		}
	}
}

func writtenRoutes(rules []spillway.HTTPRule) []any {
	var list []any
	for _, r := range rules {
		file := map[string]any{"host": r.Hosts}
		put := func(name string, v any) {
			if value := reflect.ValueOf(v); value.IsValid() && !value.IsZero() && (value.Kind() != reflect.Slice || value.Len() > 0) {
				file[name] = v
			}
		}
		if r.Path.Kind != "" {
			file["path"] = strings.TrimSpace(r.Path.String())
		}
		put("method", r.Methods)
		put("header", writtenFields(r.Headers))
		put("cookie", writtenFields(r.Cookies))
		put("query", writtenFields(r.Query))
		put("to", writtenTargets(r.To))
		if d := r.Redirect; d != nil {
			redirect := map[string]any{"status": d.Status}
			if d.Scheme != "" {
				redirect["scheme"] = d.Scheme
			}
			if to := authority(d.Host, d.Port) + writtenPath(d.Path, d.Prefix); to != "" {
				redirect["to"] = to
			}
			file["redirect"] = redirect
		}
		if w := r.Rewrite; w != nil {
			rewrite := map[string]any{}
			for name, v := range map[string]string{"host": w.Host, "path": writtenPath(w.Path, w.Prefix)} {
				if v != "" {
					rewrite[name] = v
				}
			}
			file["rewrite"] = rewrite
		}
		put("request-headers", writtenEdit(r.Request))
		put("response-headers", writtenEdit(r.Response))
		put("cors", r.CORS)
		put("mirror", writtenMirrors(r.Mirror))
		if r.Timeout > 0 {
			file["timeout"] = r.Timeout.String()
		}
		if r.Retries != nil {
			file["retries"] = *r.Retries
		}
		if r.MaxBody > 0 {
			file["max-body"] = r.MaxBody.String()
		}
		if l := r.Rate; l != nil {
			rate := map[string]any{"requests": l.Requests, "per": l.Per.String(), "burst": l.Burst}
			if l.By.Kind != "" {
				rate["by"] = l.By.Kind + " " + l.By.Name
			}
			file["rate"] = rate
		}
		put("users", r.Users)
		put("allow", r.Allow)
		list = append(list, file)
	}
	return list
}

func authority(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port > 0 {
		host = fmt.Sprintf("%s:%d", host, port)
	}
	if host == "" {
		return ""
	}
	return "//" + host
}

func writtenPath(path, prefix string) string {
	if prefix != "" {
		return strings.TrimSuffix(prefix, "/") + "/*"
	}
	return path
}

func writtenFields(fields []spillway.FieldMatch) []string {
	var list []string
	for _, f := range fields {
		list = append(list, f.String())
	}
	return list
}

func writtenTarget(t spillway.Target) any {
	if t.URLs != nil {
		return t.URLs
	}
	return t.Name()
}

func writtenTargets(targets []spillway.Target) any {
	if len(targets) == 0 {
		return nil
	}
	var list []any
	for _, t := range targets {
		list = append(list, map[string]any{"to": writtenTarget(t), "weight": t.Weight})
	}
	return list
}

func writtenMirrors(mirrors []spillway.Mirror) []any {
	var list []any
	for _, m := range mirrors {
		list = append(list, map[string]any{"to": writtenTarget(m.Target), "share": m.Share.String()})
	}
	return list
}

func writtenEdit(e *spillway.HeaderEdit) any {
	if e == nil {
		return nil
	}
	edit := map[string]any{}
	for name, fields := range map[string][]spillway.HeaderField{"set": e.Set, "add": e.Add} {
		values := map[string]string{}
		for _, f := range fields {
			values[f.Name] = f.Value
		}
		if len(values) > 0 {
			edit[name] = values
		}
	}
	if e.Remove != nil {
		edit["remove"] = e.Remove
	}
	return edit
}
