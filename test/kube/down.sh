#!/bin/sh
# Ends the test cluster and leaves nothing of it behind but the programs in the cache.
cd "$(dirname "$0")"
. ./cluster.sh
if ! test -d "$dir/run"; then
    echo "there is no cluster in $dir"
    exit 0
fi

# The end of the first process ends all others, and with them go their mounts, links and rules.
if alive; then
    kill -KILL "$(cat "$dir/init")"
    await 10 sh -c "! kill -0 $(cat "$dir/unshare")"
fi
ip link del "$name" 2>/dev/null || true
for group in $(cgroups); do
    test ! -d "$group" || await 10 sh -c "find $group -depth -type d -exec rmdir {} +"
done
test ! -e "$dir/sysctl" || sysctl -qp "$dir/sysctl"
test ! -e "$dir/folders" || xargs rmdir --ignore-fail-on-non-empty <"$dir/folders"
rm -rf "$dir"
