package kube

import (
	"fmt"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// editsAgain is until the same edit is told again: two who write against each other would fill the history.
const editsAgain = time.Minute

// tellEdit puts into the history that somebody changed a field of an object of ours, and that it is set back: once for each
// edit, whatever rounds see of it.
func (p *Platform) tellEdit(a *app, name, field string) {
	if p.conf.Events == nil || strings.HasPrefix(field, "metadata.ownerReferences") { // an uninstall takes the owner off
		return
	}
	now, edit := time.Now(), name+" "+field
	a.mu.Lock()
	told, ok := a.edits[edit]
	for other, at := range a.edits {
		if now.Sub(at) >= editsAgain {
			delete(a.edits, other)
		}
	}
	again := ok && now.Sub(told) < editsAgain
	if !again {
		if a.edits == nil {
			a.edits = map[string]time.Time{}
		}
		a.edits[edit] = now
	}
	a.mu.Unlock()
	if !again {
		text := fmt.Sprintf("%s was edited by hand (%s) and is set back; what is to stay belongs into the app file", name, field)
		p.conf.Events(spillway.Event{App: a.ref, At: now.UTC(), Kind: spillway.EventProblem, Text: text})
	}
}

// lacking is the path of the first field of which what is there is not what is wanted: "spec.template.spec.containers.0.image".
func lacking(there, want any) string {
	under := func(name, rest string) string {
		if rest == "" {
			return name
		}
		return name + "." + rest
	}
	switch w := want.(type) {
	case map[string]any:
		t, _ := there.(map[string]any)
		for _, name := range sortedKeys(w) {
			if !covers(t[name], w[name]) {
				return under(name, lacking(t[name], w[name]))
			}
		}
	case []any:
		t, _ := there.([]any)
		for i := range w {
			if len(t) == len(w) && !covers(t[i], w[i]) {
				return under(fmt.Sprint(i), lacking(t[i], w[i]))
			}
		}
	}
	return ""
}
