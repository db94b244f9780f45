# What the scripts of the test cluster share; sourced. Where things are, and how a program runs in the cluster.
set -eu

version=1.36.3 # of Kubernetes, as in tools/go.mod
dir=${SPILLWAY_KUBE_DIR:-/tmp/spillway-kube}
net=${SPILLWAY_KUBE_NET:-10.99}
node=$net.0.1 outside=$net.0.254 pods=$net.64.0/18 services=$net.128.0/18 kubernetes=$net.128.1
name=kube-$net # of the link to the cluster's network, and of the cgroup of its pods
api=https://$node:6443
registry=$node:5000
gateway=$node:80
bin=${XDG_CACHE_HOME:-$HOME/.cache}/spillway-kube/v$version/bin
export PATH="$bin:$PATH"

# await SECONDS COMMAND... runs the command until it succeeds, at most so long.
await() {
    end=$(($(date +%s) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        test "$(date +%s)" -lt "$end" || { echo "kube: waited in vain for: $*; logs are in $dir/log" >&2; return 1; }
        sleep 0.1
    done
}

# cgroups lists the group of the pods in each hierarchy: one with cgroup v2, many with v1.
cgroups() {
    if test -e /sys/fs/cgroup/cgroup.controllers; then
        echo "/sys/fs/cgroup/$name"
    else
        printf "%s$name\n" /sys/fs/cgroup/*/
    fi
}

# alive tells whether the first process of the cluster runs.
alive() { test -e "$dir/init" && grep -qs '^pause$' "/proc/$(cat "$dir/init")/comm"; }

# inside COMMAND... runs it in the namespaces of the cluster.
inside() { nsenter -t "$(cat "$dir/init")" -m -p -n "$@"; }

# run NAME starts in the cluster the command line that it reads; stop NAME ends it, start NAME starts it again.
run() {
    { printf 'exec '; cat; } >"$dir/run/$1"
    start "$1"
}

start() {
    setsid nsenter -t "$(cat "$dir/init")" -m -p -n /bin/sh "$dir/run/$1" >>"$dir/log/$1" 2>&1 </dev/null &
    echo $! >"$dir/pid/$1"
}

stop() {
    from=$(cat "$dir/pid/$1")
    pkill -TERM -P "$from" || return 0
    await 5 sh -c "! kill -0 $from" 2>/dev/null || pkill -KILL -P "$from" # the API server would wait for its watchers, a minute long
    await 5 sh -c "! kill -0 $from"
}

# request PATH [OPTION...] asks the API server as the administrator.
request() {
    path=$1
    shift
    curl -sf --cacert "$dir/pki/ca.crt" --cert "$dir/pki/admin.crt" --key "$dir/pki/admin.key" "$api$path" "$@"
}

# apply PATH applies the object that it reads, in YAML or JSON.
apply() {
    request "$1?fieldManager=kube-up&force=true" -X PATCH -H 'Content-Type: application/apply-patch+yaml' --data-binary @- >/dev/null ||
        { echo "kube: the API server refuses $1" >&2; return 1; }
}

# holds PATH TYPE tells whether the object has the condition with the status True.
holds() { request "$1" | tr -d ' \n' | grep -o "{[^{}]*\"type\":\"$2\"[^{}]*}" | grep -q '"status":"True"'; }
