package local

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// What the machine is short of is told with what to do about it, and not with what helps against something else.
func TestRemedy_IsForWhatIsMissing(t *testing.T) {
	p := &Platform{dir: "/state/local"}
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOSPC: "free space on the file system of /state (df -h /state",
		syscall.EDQUOT: "free space on the file system of /state",
		syscall.EMFILE: "LimitNOFILE=",
		syscall.EAGAIN: "TasksMax=",
		syscall.EROFS:  "mount the file system of /state for writing",
		syscall.EACCES: "give /state and all in it to the user who runs the server",
	} {
		err := error(&fs.PathError{Op: "write", Path: "/state/local/x", Err: errno})
		if got := p.cannotStart(err); !strings.HasPrefix(got, "cannot start: write /state/local/x: ") || !strings.Contains(got, "; ") || !strings.Contains(got, want) {
			t.Errorf("%v: a replica has the problem %q, without %q", errno, got, want)
		}
		if c := p.holes(err); c.State != "fail" || !strings.Contains(c.Remedy, want) || strings.Contains(c.Remedy, "ext4") {
			t.Errorf("%v: doctor says %+v", errno, c)
		}
	}
	if c := p.holes(syscall.EOPNOTSUPP); c.State != "warn" || c.Remedy != "put /state on ext4, xfs, btrfs or tmpfs" {
		t.Errorf("no holes: %+v", c)
	}
	if got := p.cannotStart(errors.New("no such thing")); got != "cannot start: no such thing" {
		t.Errorf("another error: %q", got)
	}
}
