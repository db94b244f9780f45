package local

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/spillway-dev/spillway/internal/rollout"
)

// cannotStart is the problem of a replica or a release command of which no process could be made.
func (p *Platform) cannotStart(err error) string {
	text := rollout.CannotStart + err.Error()
	if remedy := p.remedy(err); remedy != "" {
		text += "; " + remedy
	}
	return text
}

// remedy is what to do when the machine is short of something, or lets us not have it; "" for any other error.
func (p *Platform) remedy(err error) string {
	dir := filepath.Dir(p.dir)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on the file system of " + dir + " (df -h " + dir + "; df -i " + dir + ")"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "raise the limit of open files of the server: LimitNOFILE=65536 in its systemd unit, or ulimit -n 65536 before its start"
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return "this machine has no more processes or memory for its user: end something, or raise ulimit -u (TasksMax= in a systemd unit)"
	case errors.Is(err, syscall.EROFS):
		return "mount the file system of " + dir + " for writing"
	case errors.Is(err, fs.ErrPermission):
		return "give " + dir + " and all in it to the user who runs the server"
	}
	return ""
}
