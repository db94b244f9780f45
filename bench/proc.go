package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// ticksPerSecond is the unit of the times in /proc/PID/stat. Linux has reported in hundredths on every
// architecture that Go knows for as long as Go has been there.
const ticksPerSecond = 100

// usage is what a process, or a tree of them, has used.
type usage struct {
	cpu time.Duration // user and system time since the start
	rss int64         // bytes in memory now; pages that processes share are counted in each
}

// stat is the part of /proc/PID/stat that is of interest.
type stat struct {
	pid, parent int
	usage
}

// parseStat reads the text of /proc/PID/stat. The name of the program, in brackets, may have spaces and
// brackets itself, so fields are counted from the last closing one.
func parseStat(text []byte) (stat, error) {
	open, last := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || last < open {
		return stat{}, fmt.Errorf("no stat of a process: %.60q", text)
	}
	fields := bytes.Fields(text[last+1:])
	const parent, user, system, pages = 1, 11, 12, 21 // fields 4, 14, 15 and 24 of proc(5), less the three before
	if len(fields) <= pages {
		return stat{}, fmt.Errorf("a stat of %d fields: %.60q", len(fields)+2, text)
	}
	number := func(field []byte) int64 {
		n, _ := strconv.ParseInt(string(field), 10, 64) // the kernel writes numbers here
		return n
	}
	return stat{
		pid: int(number(bytes.TrimSpace(text[:open]))), parent: int(number(fields[parent])),
		usage: usage{
			cpu: time.Duration(number(fields[user])+number(fields[system])) * time.Second / ticksPerSecond,
			rss: number(fields[pages]) * int64(os.Getpagesize()),
		},
	}, nil
}

// treeUsage is what a process and all that descend from it use.
func treeUsage(root int) (usage, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return usage{}, err
	}
	var all []stat
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		s, err := parseStat(text)
		if err != nil {
			return usage{}, err
		}
		all = append(all, s)
	}
	return sumTree(root, all)
}

// sumTree adds up a process and its descendants.
func sumTree(root int, all []stat) (usage, error) {
	children, own := map[int][]stat{}, map[int]stat{}
	for _, s := range all {
		children[s.parent] = append(children[s.parent], s)
		own[s.pid] = s
	}
	if _, ok := own[root]; !ok {
		return usage{}, fmt.Errorf("process %d has ended", root)
	}
	var sum usage
	for list := []stat{own[root]}; len(list) > 0; list = list[1:] {
		sum.cpu += list[0].cpu
		sum.rss += list[0].rss
		list = append(list, children[list[0].pid]...)
	}
	return sum, nil
}
