#!/bin/sh
# Installs the programs that the test cluster runs and that are not built from their modules, where they are missing.
exec "$(dirname "$0")/../install.sh" "the tests of a cluster" containerd:containerd runc:runc docker-registry:docker-registry nft:nftables ip:iproute2 \
    nsenter:util-linux sysctl:procps openssl:openssl curl:curl /usr/lib/cni/bridge:containernetworking-plugins
