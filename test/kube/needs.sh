#!/bin/sh
# Installs the programs that the test cluster runs and that are not built from their modules, where they are missing: on Debian and its kin,
# as root or with sudo. Elsewhere it says what is missing.
set -eu

missing=
for pair in containerd:containerd runc:runc docker-registry:docker-registry nft:nftables ip:iproute2 nsenter:util-linux sysctl:procps openssl:openssl curl:curl; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
test -x /usr/lib/cni/bridge || missing="$missing containernetworking-plugins"
test -n "$missing" || exit 0

if ! command -v apt-get >/dev/null; then
    echo "the test cluster needs:$missing; install them and start again" >&2
    exit 1
fi
sudo=
test "$(id -u)" = 0 || sudo=sudo
echo "installing what the test cluster needs:$missing"
$sudo apt-get update -q >/dev/null
# A freshly installed containerd or registry would be started as a service: the policy says no.
if ! test -e /usr/sbin/policy-rc.d; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod +x /usr/sbin/policy-rc.d
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
fi
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qy --no-install-recommends $missing >/dev/null
