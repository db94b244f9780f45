// Package local is the platform on this machine: it runs replicas as processes, probes them, restarts
// them, keeps their output, and tells a data plane where they listen.
//
// It knows processes, control groups, ports, probes and files. It must not know rollouts, strategies or
// the judge: it is told how many replicas of which group have to exist and what the route is, and it
// makes that so, again and again, until it is told something else. Nothing it starts depends on it:
// replicas live in their own session, write to files instead of pipes, and are found again by a record
// that was on disk before their program ran. The server may be killed at any moment.
//
// State on disk, below Config.Dir/local:
//
//	apps/REF/desired.json          what was last asked for, with the releases that it names
//	apps/REF/state.json            table revision, run number, private listeners, counters of groups, ends of tasks
//	apps/REF/runs/NAME.RUN.json    one started process, NAME "www.4-1" or "www.4-release", RUN rises with every start
//	apps/REF/runs/NAME.RUN.out     its output that has not been copied to the log yet (.err likewise)
//	apps/REF/logs/GROUP/N.ndjson   the log of a group in segments
//	daemons/NAME/                  the same for the processes of an auxiliary program: NAME.RUN.json, .out, logs
package local
