#!/bin/sh
# install.sh WHO PROGRAM:PACKAGE... installs the packages of programs that are missing, on Debian and its kin, as root or
# with sudo. Elsewhere it says what WHO needs. A program is a name in PATH or a path.
set -eu

who=$1 missing=
shift
for pair; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
test -n "$missing" || exit 0

if ! command -v apt-get >/dev/null; then
    echo "$who need:$missing; install them and start again" >&2
    exit 1
fi
sudo=
test "$(id -u)" = 0 || sudo=sudo
echo "installing what $who need:$missing"
$sudo apt-get update -q >/dev/null
# A freshly installed nginx, redis, prometheus, containerd or registry would be started as a service: the policy says no.
if ! test -e /usr/sbin/policy-rc.d; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod +x /usr/sbin/policy-rc.d
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
fi
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qy --no-install-recommends $missing >/dev/null
