package platformtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Variable is set in the environment of every replica and release command of the suite, to what the program has
// to be like: one of the behaviours below. It is set nowhere else.
const Variable = "PLATFORMTEST"

// The behaviours of the program. All but Crash and Missing listen.
const (
	Well    = "well"
	Crash   = "crash"   // a replica ends with code 3 before it listens, with last words
	Missing = "missing" // the command does not exist
	Never   = "never"   // it listens, and never says that it is healthy
	Fails   = "fails"   // every request is answered with 500; it says that it is healthy
)

// TaskVariable is what the release command does, where there is one: one of the behaviours below.
const TaskVariable = "PLATFORMTEST_TASK"

// The behaviours of a release command.
const (
	TaskCounts = "counts" // it asks the service counter to count, and succeeds
	TaskFails  = "fails"  // it ends with code 5, with last words
	TaskHangs  = "hangs"  // it does not end by itself
)

// The last words of what ends badly.
const (
	crashWords = "boom: no database"
	taskWords  = "the table is locked"
)

// answer is what the program says of itself.
type answer struct {
	Status  int    `json:"-"`
	Text    string `json:"-"` // of an answer that is not the program's
	App     string `json:"app"`
	Service string `json:"service"`
	Release int    `json:"release"`
	Boot    string `json:"boot"` // of this process, and of no other
	Value   string `json:"value"`
}

// program is a replica that runs.
type program struct {
	getenv func(string) string
	self   answer
	sick   atomic.Bool
	count  atomic.Int64
	exit   chan int
}

// Play is what replicas and release commands run: it serves on $HOST:$PORT, does what Variable and requests tell
// it, and returns the code with which the process has to end.
func Play(getenv func(string) string) int {
	if getenv("SPILLWAY_TASK") != "" {
		return playTask(getenv)
	}
	if getenv(Variable) == Crash {
		fmt.Fprintln(os.Stderr, crashWords)
		return 3
	}
	release, err := strconv.Atoi(getenv("SPILLWAY_RELEASE"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "SPILLWAY_RELEASE:", err)
		return 1
	}
	host, err := os.Hostname()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	p := &program{getenv: getenv, exit: make(chan int, 1), self: answer{
		App: getenv("SPILLWAY_APP"), Service: getenv("SPILLWAY_SERVICE"), Release: release,
		Boot: fmt.Sprintf("%s/%d/%d", host, os.Getpid(), time.Now().UnixNano()),
	}}
	p.sick.Store(getenv(Variable) == Never)
	// Owned by the process and ended with it: whatever comes first, a failure or a request to end, ends both.
	go func() {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(getenv("HOST")+":"+getenv("PORT"), p.handler()))
		p.exit <- 1
	}()
	return <-p.exit
}

func playTask(getenv func(string) string) int {
	switch getenv(TaskVariable) {
	case TaskFails:
		fmt.Fprintln(os.Stderr, taskWords)
		return 5
	case TaskHangs:
		<-time.After(time.Hour)
	case TaskCounts:
		resp, err := http.Post(getenv("COUNTER_URL")+"/count", "text/plain", http.NoBody)
		if err == nil {
			err = resp.Body.Close()
		}
		if err != nil || resp.StatusCode != http.StatusOK {
			fmt.Fprintln(os.Stderr, "the counter does not answer:", err)
			return 1
		}
	}
	return 0
}

// handler answers with what the program says of itself. What changes something is a POST, because nobody repeats
// one.
func (p *program) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if p.sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { p.say(w, "") })
	mux.HandleFunc("GET /env/{name}", func(w http.ResponseWriter, r *http.Request) { p.say(w, p.getenv(r.PathValue("name"))) })
	mux.HandleFunc("GET /slow/{for}", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.PathValue("for"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		<-time.After(d)
		p.say(w, "")
	})
	mux.HandleFunc("GET /peer/{name}", p.peer)
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) { p.say(w, fmt.Sprint(p.count.Load())) })
	mux.HandleFunc("POST /count", func(w http.ResponseWriter, _ *http.Request) { p.say(w, fmt.Sprint(p.count.Add(1))) })
	mux.HandleFunc("POST /sick", func(w http.ResponseWriter, _ *http.Request) {
		p.sick.Store(true)
		p.say(w, "")
	})
	mux.HandleFunc("POST /exit", func(_ http.ResponseWriter, r *http.Request) {
		p.exit <- 4
		<-r.Context().Done()
	})
	return mux
}

func (p *program) say(w http.ResponseWriter, value string) {
	if p.getenv(Variable) == Fails {
		http.Error(w, "it fails", http.StatusInternalServerError)
		return
	}
	a := p.self
	a.Value = value
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a) // who asked is gone
}

// peer asks a service that this one needs, and tells its answer as the value.
func (p *program) peer(w http.ResponseWriter, r *http.Request) {
	name := strings.ToUpper(strings.ReplaceAll(r.PathValue("name"), "-", "_"))
	resp, err := http.Get(p.getenv(name+"_URL") + "/")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	p.say(w, string(text))
}
