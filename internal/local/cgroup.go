package local

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// cgroups is the part of the machine's control groups that replicas are put into: a directory of ours
// below the one that the server itself is in, so that limits set on the server hold for its replicas too.
type cgroups struct {
	roots map[string]string // controller → directory: "memory", "cpu", "cpuacct", "freezer"; "unified" = version 2
	v2    bool              // the controllers are those of version 2

	mu      sync.Mutex
	problem string // why limits cannot be enforced; "" = they can
}

// cgroup is the control group of one process: controller → directory. The zero value is none.
type cgroup map[string]string

// findCgroups looks at how control groups are mounted. It changes nothing.
func findCgroups(name string) *cgroups {
	c := &cgroups{roots: map[string]string{}}
	own := ownCgroups()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		c.problem = err.Error()
		return c
	}
	defer f.Close() //nolint:errcheck // read only
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		m, fs := strings.Fields(before), strings.Fields(after)
		if len(m) < 5 || len(fs) < 3 {
			continue
		}
		dir := func(path string) string {
			rel, inside := strings.CutPrefix(path, strings.TrimSuffix(m[3], "/"))
			if !inside || strings.HasPrefix(rel, "/..") {
				rel = "" // the server is outside what is mounted here
			}
			return filepath.Join(m[4], rel, name)
		}
		switch fs[0] {
		case "cgroup2":
			c.roots["unified"] = dir(own[""])
		case "cgroup":
			for _, option := range strings.Split(fs[2], ",") {
				if slices.Contains([]string{"cpu", "cpuacct", "memory", "freezer"}, option) {
					c.roots[option] = dir(own[option])
				}
			}
		}
	}
	c.check()
	return c
}

// ownCgroups gives the control groups of this process by controller; "" is version 2.
func ownCgroups() map[string]string {
	own := map[string]string{}
	text, _ := os.ReadFile("/proc/self/cgroup") // without it everything counts as the root
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		for _, controller := range strings.Split(f[1], ",") {
			own[controller] = f[2]
		}
	}
	return own
}

// check drops the hierarchies that cannot be written and says whether what is left can enforce limits.
func (c *cgroups) check() {
	for _, controller := range slices.Sorted(maps.Keys(c.roots)) {
		parent := filepath.Dir(c.roots[controller])
		if err := syscall.Access(parent, 2 /* W_OK */); err != nil {
			c.problem = fmt.Sprintf("%s: %v", parent, err)
			delete(c.roots, controller)
		}
	}
	if c.roots["cpu"] != "" && c.roots["memory"] != "" {
		c.problem = ""
		if c.roots["unified"] != "" {
			delete(c.roots, "freezer") // cgroup.kill of version 2 is simpler
		}
		return
	}
	if unified := c.roots["unified"]; unified != "" {
		text, _ := os.ReadFile(filepath.Join(filepath.Dir(unified), "cgroup.controllers"))
		have := strings.Fields(string(text))
		if c.v2 = slices.Contains(have, "cpu") && slices.Contains(have, "memory"); c.v2 {
			c.problem = ""
			c.roots = map[string]string{"unified": unified}
			return
		}
	}
	if c.problem == "" {
		c.problem = "no cpu and memory controllers are mounted"
	}
}

// create makes the group of one run and sets its limits. Without rights the result is partly or wholly
// empty and enforced is false: the replica then runs without limits, and its status says so.
func (c *cgroups) create(name string, limits spillway.Limits) (group cgroup, enforced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	group = cgroup{}
	enforced = c.problem == ""
	for controller, root := range c.roots {
		if err := c.prepare(root); err != nil && c.v2 {
			c.problem = err.Error()
			enforced = false
		}
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			enforced = false
			continue
		}
		group[controller] = dir
	}
	return group, group.limit(limits, c.v2) == nil && enforced
}

// prepare lets the controllers of version 2 reach the runs. A group with processes of its own cannot give
// its controllers away, so the server moves itself into a leaf when it is in the way.
func (c *cgroups) prepare(root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil || !c.v2 {
		return err
	}
	const controllers = "+cpu +memory"
	parent := filepath.Dir(root)
	err := writeFile(filepath.Join(parent, "cgroup.subtree_control"), controllers)
	if errors.Is(err, syscall.EBUSY) {
		leaf := filepath.Join(parent, "spillway-server")
		err = errors.Join(os.MkdirAll(leaf, 0o755), writeFile(filepath.Join(leaf, "cgroup.procs"), strconv.Itoa(os.Getpid())))
		if err == nil {
			err = writeFile(filepath.Join(parent, "cgroup.subtree_control"), controllers)
		}
	}
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(root, "cgroup.subtree_control"), controllers)
}

// limit writes the limits; zero ones are not written.
func (g cgroup) limit(l spillway.Limits, v2 bool) error {
	const period = 100_000 // microseconds; the kernel's default
	quota := int64(l.CPU) * period / 1000
	var errs []error
	set := func(controller, file, value string) {
		errs = append(errs, writeFile(filepath.Join(g[controller], file), value))
	}
	switch {
	case v2 && l.CPU > 0:
		set("unified", "cpu.max", fmt.Sprintf("%d %d", quota, period))
	case l.CPU > 0:
		set("cpu", "cpu.cfs_quota_us", strconv.FormatInt(quota, 10))
	}
	switch {
	case v2 && l.Memory > 0:
		set("unified", "memory.max", strconv.FormatInt(int64(l.Memory), 10))
	case l.Memory > 0:
		set("memory", "memory.limit_in_bytes", strconv.FormatInt(int64(l.Memory), 10))
	}
	return errors.Join(errs...)
}

// join puts the calling process into the group.
func (g cgroup) join() error {
	var errs []error
	for _, dir := range g {
		errs = append(errs, writeFile(filepath.Join(dir, "cgroup.procs"), "0"))
	}
	return errors.Join(errs...)
}

// members lists the live processes in the group.
func (g cgroup) members() []int {
	for _, dir := range g { // every process is in all of them, so any one will do
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		var pids []int
		for _, f := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	return nil
}

// kill ends every process in the group. A group that can be neither killed as a whole (version 2) nor
// frozen (version 1) is killed process by process, until a look finds none.
func (g cgroup) kill() {
	if dir := g["unified"]; dir != "" && writeFile(filepath.Join(dir, "cgroup.kill"), "1") == nil {
		return
	}
	state := filepath.Join(g["freezer"], "freezer.state")
	frozen := g["freezer"] != "" && writeFile(state, "FROZEN") == nil
	for range 10 {
		pids := g.members()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone already
		}
		if frozen || len(pids) == 0 {
			break
		}
	}
	if frozen {
		_ = writeFile(state, "THAWED") // the signals are delivered now
	}
}

// remove deletes the group. The kernel refuses for a moment after the last process ended, so it asks
// again for up to a second; what is left then is removed by the next start of the server.
func (g cgroup) remove() {
	deadline := time.Now().Add(time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, dir := range g {
		for {
			err := os.Remove(dir)
			if err == nil || missing(err) || time.Now().After(deadline) {
				break
			}
			<-tick.C
		}
	}
}

// ranOutOfMemory reports whether the kernel killed a process of the group for its memory.
func (g cgroup) ranOutOfMemory() bool {
	for _, file := range []string{filepath.Join(g["memory"], "memory.oom_control"), filepath.Join(g["unified"], "memory.events")} {
		if n, ok := field(file, "oom_kill"); ok && n > 0 {
			return true
		}
	}
	return false
}

// usage gives the CPU time used so far and the working set. ok is false when the group cannot tell.
func (g cgroup) usage() (cpu time.Duration, memory spillway.Bytes, ok bool) {
	if dir := g["memory"]; dir != "" {
		used, ok1 := number(filepath.Join(dir, "memory.usage_in_bytes"))
		cache, _ := field(filepath.Join(dir, "memory.stat"), "total_inactive_file")
		nanos, ok2 := number(filepath.Join(g["cpuacct"], "cpuacct.usage"))
		return time.Duration(nanos), spillway.Bytes(max(0, used-cache)), ok1 && ok2
	}
	dir := g["unified"]
	used, ok1 := number(filepath.Join(dir, "memory.current"))
	cache, _ := field(filepath.Join(dir, "memory.stat"), "inactive_file")
	micros, ok2 := field(filepath.Join(dir, "cpu.stat"), "usage_usec")
	return time.Duration(micros) * time.Microsecond, spillway.Bytes(max(0, used-cache)), dir != "" && ok1 && ok2
}

// sweep kills and removes every group below the roots that is not kept.
func (c *cgroups) sweep(keep map[string]bool) {
	for controller, root := range c.roots {
		entries, err := os.ReadDir(root)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && !keep[e.Name()] {
				g := cgroup{controller: filepath.Join(root, e.Name())}
				g.kill()
				g.remove()
			}
		}
	}
}

// state says why limits cannot be enforced, or "".
func (c *cgroups) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problem
}

// removeRoots deletes our directories when nothing runs in them.
func (c *cgroups) removeRoots() {
	for _, root := range c.roots {
		_ = os.Remove(root) // refused while there are runs in it
	}
}

// writeFile writes to an existing file of the kernel.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func number(path string) (int64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// field reads one number of a file of "name number" lines.
func field(path, name string) (int64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == name {
			n, err := strconv.ParseInt(v, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
