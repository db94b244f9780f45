#!/bin/sh
# The legacy servers: two nginx that Spillway does not run, in the foreground until Ctrl-C.
# Usage: legacy.sh [PORT1 PORT2]
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
{
    echo 'daemon off; master_process off; error_log stderr; events {}'
    echo "pid $dir/pid;"
    echo 'http { access_log off;'
    for path in client_body proxy fastcgi uwsgi scgi; do echo "${path}_temp_path $dir;"; done
    number=1
    for port in "${1:-9101}" "${2:-9102}"; do
        echo "server { listen 127.0.0.1:$port; location / {
            default_type application/json; return 200 '{\"stack\": \"legacy-$number\"}'; } }"
        number=$((number + 1))
    done
    echo '}'
} >"$dir/nginx.conf"
nginx -c "$dir/nginx.conf" -e stderr &
trap 'kill $! 2>/dev/null || true' INT TERM
wait || true # for nginx, or for a signal
wait || true
