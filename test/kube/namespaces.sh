# The cluster lives in namespaces of its own (network, processes, mounts), so that ending their first process
# ends and undoes everything in them. A pair of links and two routes lead from this machine to its node, pods
# and Services. Sourced by up.sh.

sysctl kernel.panic kernel.panic_on_oops vm.overcommit_memory >"$dir/sysctl" # which the kubelet changes
setsid unshare --net --pid --mount --fork --kill-child --mount-proc --propagation private "$bin/pause" >/dev/null 2>&1 </dev/null &
echo $! >"$dir/unshare"
await 5 pgrep -P "$(cat "$dir/unshare")"
pgrep -P "$(cat "$dir/unshare")" >"$dir/init"
await 5 sh -c "grep -q pause /proc/$(cat "$dir/init")/comm" # its namespaces are there by now

# The kubelet, containerd and the network plugins have folders that cannot be moved.
for folder in /var/lib/kubelet /var/lib/cni /var/log/containers /run/netns /run/containerd; do
    test -d $folder || { mkdir -p $folder && echo $folder >>"$dir/folders"; }
    inside mount -t tmpfs tmpfs $folder
done
mkdir -p $(cgroups)
if test -e /sys/fs/cgroup/cgroup.controllers; then
    sed 's/[a-z]\+/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
fi

ip link add "$name" type veth peer name eth0 netns "$(cat "$dir/init")"
ip addr add "$outside/24" dev "$name"
ip link set "$name" up
inside ip link set lo up
inside ip addr add "$node/24" dev eth0
inside ip link set eth0 up
inside ip route add default via "$outside"
inside sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
ip route replace "$pods" via "$node"
ip route replace "$services" via "$node"
