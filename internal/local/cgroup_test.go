package local

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/spillway-dev/spillway"
)

// Each way to kill a group is taken on its own: the machine of the test may offer several, the machine of
// a user only one.
func TestCgroup_KillsAWholeTreeInEveryWay(t *testing.T) {
	machine := findCgroups("spillway-test-" + filepath.Base(t.TempDir()))
	if why := machine.state(); why != "" {
		if group, enforced := machine.create("any", spillway.Limits{}); enforced {
			t.Errorf("limits are said to be enforced in %v although %s", group, why)
		}
		return
	}
	if freezer := "/sys/fs/cgroup/freezer"; machine.roots["freezer"] == "" && !machine.v2 {
		if _, err := os.Stat(freezer); err == nil {
			machine.roots["freezer"] = filepath.Join(freezer, ownCgroups()["freezer"], filepath.Base(machine.roots["cpu"]))
		}
	}
	for _, controller := range []string{"unified", "freezer", "memory"} { // memory: process by process
		root := machine.roots[controller]
		if root == "" {
			t.Logf("%s is not mounted here: not tried", controller)
			continue
		}
		t.Run(controller, func(t *testing.T) {
			only := &cgroups{roots: map[string]string{controller: root}, v2: machine.v2}
			killsTree(t, only)
		})
	}
}

// killsTree puts a shell with a child that leaves its session into a group of one controller and kills it.
func killsTree(t *testing.T, c *cgroups) {
	group, _ := c.create("tree", spillway.Limits{})
	defer c.removeRoots()
	for _, dir := range group {
		cmd := exec.Command("/bin/sh", "-c", `echo $$ > "$0/cgroup.procs"; setsid sleep 1000 & echo; sleep 1000`, dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		group.kill()
		_ = cmd.Wait() // it says that it was killed
		group.remove()
		if pids := group.members(); len(pids) > 0 {
			t.Errorf("%v survived", pids)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}
