#!/bin/sh
# Builds what the test cluster runs from pinned modules into the user's cache, once: again when a pin or a source has changed.
cd "$(dirname "$0")"
. ./cluster.sh
export CGO_ENABLED=0
mkdir -p "$bin"

# once WHAT FILE... builds it, unless it was built from the same files before.
once() {
    what=$1
    shift
    pins=$(cat "$@" build.sh | sha256sum)
    test "$pins" != "$(cat "$bin/$what.pins" 2>/dev/null)" || return 0
    echo "building the test cluster's programs: $what"
    "build_$what"
    echo "$pins" >"$bin/$what.pins"
}

build_kubernetes() {
    minor=${version#1.}
    stamp=k8s.io/component-base/version
    (cd tools && nice -n 10 go build -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%.*}" -o "$bin/" tool)
    mv "$bin/server" "$bin/etcd"
}

build_own() {
    nice -n 10 go build -ldflags '-s -w' -o "$bin/" ./coredns ./pause ./push
    rm -rf "$bin/gateway-api"
    mkdir "$bin/gateway-api"
    cp "$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)"/config/crd/standard/*io_[!v]*.yaml "$bin/gateway-api/" # all but its policy
}

build_traefik() {
    ln -sf "$(cd ../../bench && go run . -only-build traefik)" "$bin/traefik"
}

build_extras() {
    (
        cd extras
        nice -n 10 go build -ldflags '-s -w' -o "$bin/" tool
        cd "$(go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage"
        for stage in node/fast/node-initialize node/heartbeat-with-lease/node-heartbeat-with-lease pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete; do
            echo ---
            cat $stage.yaml
        done >"$bin/kwok.yaml"
    )
}

once kubernetes tools/go.mod tools/go.sum
once own go.mod go.sum coredns/*.go pause/*.go push/*.go image/*.go
once traefik ../../bench/build.go
test -z "${KUBE_WITH-}" || once extras extras/go.mod extras/go.sum
