package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// upstreamIdle is how many idle connections to the backend each proxy may keep: more than there are users.
const upstreamIdle = 512

// startNginxProxy runs nginx as a proxy, with a server per route.
func startNginxProxy(_ context.Context, s setup) (*process, error) {
	return startNginx(s.dir, "nginx", nginxConfig(s))
}

func nginxConfig(s setup) string {
	var b strings.Builder
	fmt.Fprintf(&b, `worker_processes auto;
daemon off;
pid %[1]s/nginx.pid;
error_log stderr crit;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 75s;
  server_tokens off;
  server_names_hash_max_size 65536;
  server_names_hash_bucket_size 128;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  ssl_certificate %[2]s;
  ssl_certificate_key %[3]s;
  ssl_protocols TLSv1.2 TLSv1.3;
  upstream app { server %[4]s; keepalive %[5]d; keepalive_requests 1000000000; }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_buffer_size 16k;
  proxy_buffers 8 16k;
  proxy_max_temp_file_size 0;
  server { listen 127.0.0.1:%[6]d default_server backlog=4096; listen 127.0.0.1:%[7]d ssl http2 default_server backlog=4096; return 404; }
`, s.dir, s.cert, s.key, s.backend, upstreamIdle, s.port, s.tlsPort)
	for _, host := range s.hosts() {
		fmt.Fprintf(&b, "  server { listen 127.0.0.1:%d; listen 127.0.0.1:%d ssl http2; server_name %s; location / { proxy_pass http://app; } }\n", s.port, s.tlsPort, host)
	}
	b.WriteString("}\n")
	return b.String()
}

// startHAProxy runs HAProxy, with a map from hosts to the backend where there are many.
func startHAProxy(_ context.Context, s setup) (*process, error) {
	file := filepath.Join(s.dir, "haproxy.cfg")
	var hosts strings.Builder
	for _, host := range s.hosts() {
		fmt.Fprintf(&hosts, "%s app\n", host)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "hosts.map"), []byte(hosts.String()), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(haproxyConfig(s)), 0o600); err != nil {
		return nil, err
	}
	path, _ := program("haproxy") // findPeers has looked
	return start(s.dir, "haproxy", nil, path, "-db", "-f", file)
}

func haproxyConfig(s setup) string {
	route := "use_backend app if { req.hdr(host),field(1,:) -i localhost }"
	if s.routes > 1 {
		route = fmt.Sprintf("use_backend %%[req.hdr(host),field(1,:),lower,map(%s/hosts.map,none)]", s.dir)
	}
	return fmt.Sprintf(`global
  maxconn 4096
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  timeout http-request 10s
  http-reuse always
  option forwardfor
frontend public
  bind 127.0.0.1:%d backlog 4096
  bind 127.0.0.1:%d ssl crt %s alpn h2,http/1.1 backlog 4096
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  http-request set-header X-Forwarded-Proto http unless { ssl_fc }
  http-request set-header X-Forwarded-Host %%[req.hdr(host)]
  %s
  default_backend none
backend app
  server one %s pool-max-conn %d
backend none
  http-request return status 404
`, s.port, s.tlsPort, s.pair, route, s.backend, upstreamIdle)
}

// startPlain runs our own program around httputil.ReverseProxy. It has one route.
func startPlain(program string) func(context.Context, setup) (*process, error) {
	return func(_ context.Context, s setup) (*process, error) {
		return start(s.dir, "plain", nil, program, "-backend", s.backend, "-cert", s.cert, "-key", s.key,
			"-http", fmt.Sprintf("127.0.0.1:%d", s.port), "-https", fmt.Sprintf("127.0.0.1:%d", s.tlsPort))
	}
}

// object is a piece of JSON.
type object map[string]any

// startCaddy runs Caddy, with a route per host.
func startCaddy(program string) func(context.Context, setup) (*process, error) {
	return func(_ context.Context, s setup) (*process, error) {
		text, err := json.Marshal(caddyConfig(s))
		if err != nil {
			return nil, err
		}
		file := filepath.Join(s.dir, "caddy.json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return nil, err
		}
		home := []string{"HOME=" + s.dir, "XDG_CONFIG_HOME=" + s.dir, "XDG_DATA_HOME=" + s.dir}
		return start(s.dir, "caddy", home, program, "run", "--config", file)
	}
}

func caddyConfig(s setup) object {
	var routes []object
	for _, host := range s.hosts() {
		routes = append(routes, object{
			"match": []object{{"host": []string{host}}}, "terminal": true,
			"handle": []object{{
				"handler": "reverse_proxy", "upstreams": []object{{"dial": s.backend}},
				"transport": object{"protocol": "http", "compression": false, "keep_alive": object{"max_idle_conns_per_host": upstreamIdle}},
			}},
		})
	}
	server := func(port int) object {
		return object{"listen": []string{fmt.Sprintf("127.0.0.1:%d", port)}, "routes": routes, "automatic_https": object{"disable": true}, "protocols": []string{"h1", "h2"}}
	}
	secure := server(s.tlsPort)
	secure["tls_connection_policies"] = []object{{}}
	return object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"apps": object{
			"http": object{"servers": object{"plain": server(s.port), "secure": secure}},
			"tls":  object{"certificates": object{"load_files": []object{{"certificate": s.cert, "key": s.key}}}},
		},
	}
}

// startTraefik runs Traefik with a file of routers. JSON is YAML.
func startTraefik(program string) func(context.Context, setup) (*process, error) {
	return func(_ context.Context, s setup) (*process, error) {
		static, dynamic := filepath.Join(s.dir, "traefik.yml"), filepath.Join(s.dir, "dynamic.yml")
		for file, config := range map[string]object{static: traefikStatic(s, dynamic), dynamic: traefikDynamic(s)} {
			text, err := json.Marshal(config)
			if err != nil {
				return nil, err
			}
			if err := os.WriteFile(file, text, 0o600); err != nil {
				return nil, err
			}
		}
		return start(s.dir, "traefik", nil, program, "--configFile="+static)
	}
}

func traefikStatic(s setup, dynamic string) object {
	return object{
		"global": object{"checkNewVersion": false, "sendAnonymousUsage": false},
		"log":    object{"level": "ERROR"},
		"entryPoints": object{
			"plain":  object{"address": fmt.Sprintf("127.0.0.1:%d", s.port)},
			"secure": object{"address": fmt.Sprintf("127.0.0.1:%d", s.tlsPort)},
		},
		"serversTransport": object{"maxIdleConnsPerHost": upstreamIdle},
		"providers":        object{"file": object{"filename": dynamic, "watch": false}},
	}
}

func traefikDynamic(s setup) object {
	routers := object{}
	for i, host := range s.hosts() {
		routers[fmt.Sprintf("plain%d", i)] = object{"rule": "Host(`" + host + "`)", "entryPoints": []string{"plain"}, "service": "app"}
		if s.secure {
			routers[fmt.Sprintf("secure%d", i)] = object{"rule": "Host(`" + host + "`)", "entryPoints": []string{"secure"}, "service": "app", "tls": object{}}
		}
	}
	return object{
		"http": object{
			"routers":  routers,
			"services": object{"app": object{"loadBalancer": object{"servers": []object{{"url": "http://" + s.backend}}, "passHostHeader": true}}},
		},
		"tls": object{"certificates": []object{{"certFile": s.cert, "keyFile": s.key}}},
	}
}
