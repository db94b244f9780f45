package pipeline

import "time"

// Limit lowers the bounds of sources and of the time of a build for a test.
func (b *Builder) Limit(bytes int64, files int, timeout time.Duration) {
	b.maxBytes, b.maxFiles, b.timeout = bytes, files, timeout
}

// Disk is how an error of the disk is told.
func (b *Builder) Disk(work string, err error) error { return b.disk(work, err) }

// DigestDir is the digest of a directory.
func DigestDir(dir string) (string, error) { return digestDir(dir, "") }
