#!/bin/sh
# Installs the programs that the tests run (the race detector needs a C compiler), where they are missing.
exec "$(dirname "$0")/../install.sh" "the tests" gcc:build-essential git:git haproxy:haproxy nginx:nginx-light openssl:openssl \
    prometheus:prometheus python3:python3 redis-server:redis-server slowhttptest:slowhttptest wrk:wrk
