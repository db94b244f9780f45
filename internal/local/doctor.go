package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/spillway-dev/spillway"
)

// Doctor looks at what the platform needs of this machine. It changes nothing but a file that it deletes.
func (p *Platform) Doctor(ctx context.Context) []spillway.Check {
	var found []spillway.Check
	for _, check := range []func() spillway.Check{p.checkLimits, p.checkPorts, p.checkOrphans, p.checkDisk, p.checkHoles} {
		if ctx.Err() != nil {
			break
		}
		found = append(found, check())
	}
	return found
}

func (p *Platform) checkLimits() spillway.Check {
	c := spillway.Check{Name: "cgroups", State: "ok", Text: "limits are enforced by control groups version 1"}
	if p.groups.v2 {
		c.Text = "limits are enforced by control groups version 2"
	}
	if why := p.groups.state(); why != "" {
		c.State, c.Text = "warn", "limits are not enforced: "+why
		c.Remedy = "run the server as root, or as a systemd service with Delegate=yes"
	}
	return c
}

func (p *Platform) checkPorts() spillway.Check {
	first, last := p.conf.Ports[0], p.conf.Ports[1]-1
	c := spillway.Check{Name: "ports", State: "ok", Text: fmt.Sprintf("replicas get ports from %d to %d", first, last)}
	port, err := p.ports.take(time.Now())
	if err != nil {
		return spillway.Check{Name: "ports", State: "fail", Text: err.Error(), Remedy: "end what uses the ports"}
	}
	p.ports.release(port, time.Now())
	var low, high int
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return c
	}
	if _, err := fmt.Sscan(string(text), &low, &high); err == nil && low <= last && first <= high {
		c.State, c.Text = "warn", c.Text+fmt.Sprintf(", and the system gives outgoing connections ports from %d to %d", low, high)
		c.Remedy = fmt.Sprintf("sysctl -w net.ipv4.ip_local_port_range='%d %d'", last+1, max(high, 60999))
	}
	return c
}

func (p *Platform) checkOrphans() spillway.Check {
	var on int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&on)), 0, 0, 0)
	if err == nil && (on != 0 || os.Getpid() == 1) {
		return spillway.Check{Name: "orphans", State: "ok", Text: "what replicas leave behind is collected by the server"}
	}
	return spillway.Check{Name: "orphans", State: "warn", Text: "what replicas leave behind is collected by pid 1, not by the server"}
}

func (p *Platform) checkDisk() spillway.Check {
	const little = 1 << 30
	c := spillway.Check{Name: "disk", State: "ok"}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(p.dir, &fs); err != nil {
		return spillway.Check{Name: "disk", State: "fail", Text: err.Error(), Remedy: p.remedy(err)}
	}
	free := int64(fs.Bavail) * fs.Bsize
	c.Text = fmt.Sprintf("%.1f GiB are free in %s", float64(free)/little, p.dir)
	if free < little {
		c.State, c.Remedy = "warn", "make room: without it neither state nor logs can be written"
	}
	return c
}

// checkHoles tries whether the file system can give back the beginning of a file.
func (p *Platform) checkHoles() spillway.Check {
	f, err := os.CreateTemp(p.dir, ".tmp-*")
	if err != nil {
		return spillway.Check{Name: "spools", State: "fail", Text: err.Error(), Remedy: p.remedy(err)}
	}
	_, err = f.WriteString(strings.Repeat("x", chunk))
	if err == nil {
		err = punchHole(f, chunk/2)
	}
	return p.holes(errors.Join(err, f.Close(), os.Remove(f.Name())))
}

// holes is the check of what came of the try.
func (p *Platform) holes(err error) spillway.Check {
	c := spillway.Check{Name: "spools", State: "ok", Text: "output that has been copied to the log is given back to the file system"}
	if err == nil {
		return c
	}
	if c.Remedy = p.remedy(err); c.Remedy != "" {
		c.State, c.Text = "fail", fmt.Sprintf("what replicas write cannot be kept: %v", err)
		return c
	}
	c.State, c.Text = "warn", fmt.Sprintf("the spool of a replica grows until it is started again: %v", err)
	c.Remedy = "put " + filepath.Dir(p.dir) + " on ext4, xfs, btrfs or tmpfs"
	return c
}
