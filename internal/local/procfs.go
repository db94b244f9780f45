package local

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// stat is what /proc/PID/stat says of a process.
type stat struct {
	state   byte // 'R', 'S', 'Z' …
	parent  int
	session int
	start   uint64 // clock ticks after boot: with the pid and the boot it identifies a process for ever
	ticks   uint64 // CPU time used, in clock ticks
	pages   uint64 // resident memory, in pages
}

// ticksPerSecond is USER_HZ, which Linux fixes at 100 for all that user space sees.
const ticksPerSecond = 100

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The second field is the name in parentheses, and the name may contain anything.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 22 {
		return stat{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(f))
	}
	number := func(i int) uint64 { n, _ := strconv.ParseUint(f[i], 10, 64); return n }
	return stat{
		state: f[0][0], parent: int(number(1)), session: int(number(3)), start: number(19),
		ticks: number(11) + number(12), pages: number(21),
	}, nil
}

// alive reports whether the process that had this pid and start time still runs.
func alive(pid int, start uint64) bool {
	s, err := readStat(pid)
	return err == nil && s.start == start && s.state != 'Z' && s.state != 'X'
}

// bootID identifies the present boot of the machine.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}

// allPIDs lists every process that can be seen.
func allPIDs() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// marks finds the processes whose environment names a run of the given state directory, by pid. Programs
// cannot lose the mark by accident, only by clearing their environment on purpose.
func marks(dirID string) map[int]string {
	prefix := []byte(markName + "=" + dirID + "/")
	found := map[int]string{}
	for _, pid := range allPIDs() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || !bytes.Contains(text, prefix) {
			continue
		}
		for v := range bytes.SplitSeq(text, []byte{0}) {
			if bytes.HasPrefix(v, prefix) {
				found[pid] = string(v[len(markName)+1:])
			}
		}
	}
	return found
}

// sessionOf lists the live processes of a session.
func sessionOf(session int) []int {
	var pids []int
	for _, pid := range allPIDs() {
		if s, err := readStat(pid); err == nil && s.session == session && s.state != 'Z' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// listening gives the TCP addresses on which the processes listen, sorted.
func listening(pids []int) []netip.AddrPort {
	var found []netip.AddrPort
	for _, pid := range pids {
		inodes := sockets(pid)
		if len(inodes) == 0 {
			continue
		}
		for _, table := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(text)) {
				f := strings.Fields(line)
				if len(f) < 10 || f[3] != "0A" || !inodes[f[9]] { // 0A is LISTEN
					continue
				}
				if a, ok := parseSocketAddress(f[1]); ok {
					found = append(found, a)
				}
			}
		}
	}
	slices.SortFunc(found, netip.AddrPort.Compare)
	return slices.Compact(found)
}

// sockets gives the inodes of the open sockets of a process.
func sockets(pid int) map[string]bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	inodes := map[string]bool{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if inode, ok := strings.CutPrefix(target, "socket:["); ok && err == nil {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return inodes
}

// parseSocketAddress reads "0100007F:4E21" (127.0.0.1:20001): the address is in the byte order of the
// machine, word by word; every machine that Spillway is built for is little-endian.
func parseSocketAddress(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for w := 0; w < len(raw); w += 4 {
		slices.Reverse(raw[w : w+4])
	}
	a, ok := netip.AddrFromSlice(net.IP(raw))
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}

// usageOf adds up the CPU time and the resident memory of live processes.
func usageOf(pids []int) (cpu time.Duration, memory spillway.Bytes) {
	for _, pid := range pids {
		if s, err := readStat(pid); err == nil {
			cpu += time.Duration(s.ticks) * time.Second / ticksPerSecond
			memory += spillway.Bytes(int(s.pages) * os.Getpagesize())
		}
	}
	return cpu, memory
}
