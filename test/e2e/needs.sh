#!/bin/sh
# Installs the programs that the tests run (the race detector needs a C compiler), where they are missing: on Debian and its kin, as root
# or with sudo. Elsewhere it says what is missing.
set -eu

missing=
for pair in gcc:build-essential git:git haproxy:haproxy nginx:nginx-light openssl:openssl prometheus:prometheus python3:python3 redis-server:redis-server slowhttptest:slowhttptest wrk:wrk; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
test -n "$missing" || exit 0

if ! command -v apt-get >/dev/null; then
    echo "the tests need:$missing; install them and start again" >&2
    exit 1
fi
sudo=
test "$(id -u)" = 0 || sudo=sudo
echo "installing what the tests need:$missing"
$sudo apt-get update -q >/dev/null
# A freshly installed nginx, redis or prometheus would be started as a service: the policy says no.
if ! test -e /usr/sbin/policy-rc.d; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod +x /usr/sbin/policy-rc.d
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
fi
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qy --no-install-recommends $missing >/dev/null
