package metrics

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// answer is what came back: that the condition holds, that it does not, or (silent) that nobody could say.
type answer struct {
	ok, silent bool
	text       string // one line
}

func yes(text string) answer { return answer{ok: true, text: text} }
func no(text string) answer  { return answer{text: text} }

// nobody says why there is no answer.
func nobody(format string, args ...any) answer {
	return answer{silent: true, text: fmt.Sprintf(format, args...)}
}

// Of a body or an output so much is read or shown.
const (
	mostRead  = 4 << 20 // bytes of an answer of a Prometheus
	mostShown = 200     // bytes of what a URL or a command said
)

// once asks a gate once.
func (a *Asker) once(ctx context.Context, q question) answer {
	ctx, cancel := context.WithTimeout(ctx, a.conf.tune.timeout)
	defer cancel()
	source := q.watch.Gate.Source
	var err error
	if q.watch.Gate.Metric != "run" { // a command has the same in its environment
		if source, err = fill(source, q.values()); err != nil {
			return nobody("%v", err)
		}
	}
	switch q.watch.Gate.Metric {
	case "query":
		return a.query(ctx, q, source)
	case "http":
		return a.fetch(ctx, source)
	case "run":
		return a.run(ctx, q, source)
	}
	return nobody("a gate of the kind %q cannot be asked", q.watch.Gate.Metric)
}

// values are what a gate may depend on, by the names of its placeholders.
func (q question) values() map[string]string {
	name, environment, _ := strings.Cut(string(q.app), "@")
	return map[string]string{
		"app": name, "environment": cmp.Or(environment, "production"), "track": cmp.Or(q.watch.Track, "stable"),
		"release": strconv.Itoa(q.watch.Release), "stable": strconv.Itoa(q.watch.Stable),
	}
}

var (
	placeholder = regexp.MustCompile(`\{\{ *([a-z]+) *\}\}`)
	harmless    = regexp.MustCompile(`^[A-Za-z0-9._-]+$`) // within quotes of PromQL, and in every part of a URL
)

// fill puts values into the placeholders of a text. Other text in braces stays as it is.
func fill(text string, values map[string]string) (filled string, err error) {
	filled = placeholder.ReplaceAllStringFunc(text, func(found string) string {
		value, ok := values[placeholder.FindStringSubmatch(found)[1]]
		if !ok {
			return found
		}
		if !harmless.MatchString(value) {
			err = fmt.Errorf("%s is %q, which cannot stand in a query or a URL", found, value)
		}
		return value
	})
	return filled, err
}

// fetch asks a URL: 2xx is a yes, any other answer a no. A redirect is another answer.
func (a *Asker) fetch(ctx context.Context, url string) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nobody("%v", bare(err))
	}
	resp, err := a.send(req)
	if err != nil {
		return a.noAnswer(ctx, err)
	}
	defer resp.Body.Close()                                     //nolint:errcheck // read only
	body, _ := io.ReadAll(io.LimitReader(resp.Body, mostShown)) // the status has been heard; what it says besides is an extra
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return yes(resp.Status)
	}
	if said := oneLine(body); said != "" {
		return no(resp.Status + ": " + said)
	}
	return no(resp.Status)
}

func (a *Asker) send(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", "spillway-gate")
	return a.client.Do(req)
}

// noAnswer says why nothing came back.
func (a *Asker) noAnswer(ctx context.Context, err error) answer {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nobody("no answer within %s", a.conf.tune.timeout)
	}
	return nobody("no answer: %v", bare(err))
}

// bare takes the URL out of an error: it may hold a password, and the gate's text names it.
func bare(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// oneLine makes text of a program fit into a sentence.
func oneLine(text []byte) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "?")), " ")
}

// inherited are the variables of the server that a command sees, as replicas do.
var inherited = [...]string{"HOME", "LANG", "PATH", "TMPDIR", "TZ"}

// run asks a command: 0 is a yes, 1 to 125 a no. A command that is not found, cannot be executed, is ended
// by a signal or takes too long has said nothing. Its process group is killed with it.
func (a *Asker) run(ctx context.Context, q question, line string) answer {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Dir = q.dir
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	for name, value := range q.values() {
		cmd.Env = append(cmd.Env, "SPILLWAY_"+strings.ToUpper(name)+"="+value)
	}
	var said lastOutput
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	killAll := func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return os.ErrProcessDone
	}
	cmd.Cancel, cmd.WaitDelay = killAll, time.Second
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		_ = killAll() // what it left behind holds its output, so the group is still there
	}
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nobody("no answer within %s%s", a.conf.tune.timeout, said.behind("; last line: "))
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return yes("exit code 0" + said.behind(": "))
	case !errors.As(err, &ended):
		return nobody("cannot be run: %v", err)
	case ended.Exited() && ended.ExitCode() < 126:
		return no(fmt.Sprintf("exit code %d%s", ended.ExitCode(), said.behind(": ")))
	}
	return nobody("%v%s", ended, said.behind(": ")) // "exit status 127", "signal: killed"
}

// lastOutput keeps the end of what a command writes.
type lastOutput struct{ text []byte }

// Write takes everything and keeps what may be shown.
func (o *lastOutput) Write(p []byte) (int, error) {
	o.text = append(o.text, p...)
	const enough = 4 << 10
	if len(o.text) > 2*enough {
		o.text = bytes.Clone(o.text[len(o.text)-enough:])
	}
	return len(p), nil
}

// behind gives the last line behind a prefix, or nothing if nothing was written.
func (o *lastOutput) behind(prefix string) string {
	text := bytes.TrimSpace(o.text)
	line := oneLine(text[bytes.LastIndexByte(text, '\n')+1:])
	if line == "" {
		return ""
	}
	return prefix + strings.ToValidUTF8(line[:min(len(line), mostShown)], "")
}
