package proxy

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// ticks is how many units of time a second has in /proc/PID/stat, on every Linux that Go runs on.
const ticks = 100

// process writes the usual metrics of a process, under the names that every Prometheus knows. What /proc does not
// say is left out.
func (e *exposition) process() {
	e.one("go_goroutines", "gauge", "Goroutines that exist.", float64(runtime.NumGoroutine()))
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return
	}
	// The name of the program, in parentheses, may have spaces: see proc_pid_stat(5). What follows begins with field 3.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	field := func(n int) float64 {
		if n-3 >= len(fields) {
			return 0
		}
		v, _ := strconv.ParseFloat(fields[n-3], 64) // they are numbers
		return v
	}
	e.one("process_cpu_seconds_total", "counter", "Processor time of user and system.", (field(14)+field(15))/ticks)
	e.one("process_resident_memory_bytes", "gauge", "Memory that is in use.", field(24)*float64(os.Getpagesize()))
	if boot := bootTime(); boot > 0 {
		e.one("process_start_time_seconds", "gauge", "When the process started, since 1970.", boot+field(22)/ticks)
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		e.one("process_open_fds", "gauge", "Open descriptors of files.", float64(len(open)))
	}
}

// bootTime is when the machine started, in seconds since 1970; 0 = it is not known.
func bootTime() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	for text := range strings.Lines(string(stat)) {
		if seconds, ok := strings.CutPrefix(text, "btime "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(seconds), 64)
			return v
		}
	}
	return 0
}
