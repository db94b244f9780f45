package state

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// What an App may hold. A cluster takes objects of 1.5 MiB: what is left is room for annotations of others.
const (
	KeptEvents = 100       // events of an app, at most
	eventBytes = 256 << 10 // of events, at most
	softBytes  = 800 << 10 // of the whole object, before events make room
	hardBytes  = 1 << 20   // of the whole object, without events
	edgeBytes  = 32 << 10  // of one event: what is larger goes without its edges
	longest    = 4 << 10   // of one text
)

// Save replaces the status and appends the events in one write, if the saved version is still the one given, which
// then rises by one; ErrStale otherwise, ErrNotFound when there is no such app. Intents up to status.Intent are
// acted on and forgotten. Old events make room for new ones.
func (s *Store) Save(ctx context.Context, ref spillway.Ref, version int64, status rollout.Status, events []spillway.Event) error {
	memory, err := document(status)
	if err != nil {
		return fmt.Errorf("save %s: %w", ref, err)
	}
	app, err := s.change(ctx, ref, func(app *v1alpha1.App) error {
		switch {
		case !exists(app):
			return noApp(ref)
		case app.Status.Version != version:
			return fmt.Errorf("version %d is saved, not %d: %w", app.Status.Version, version, spillway.ErrStale)
		}
		app.Status.Version, app.Status.Memory = version+1, &memory
		app.Status.Intents = slices.DeleteFunc(app.Status.Intents, func(text apiextensions.JSON) bool {
			var intent spillway.Intent
			return json.Unmarshal(text.Raw, &intent) == nil && intent.Seq <= status.Intent
		})
		describe(app, status, events)
		if s.aside(app, status) {
			app.Status.Message = fmt.Sprintf("release %d serves after a rollback%s", status.Stable, aside)
		}
		return appendEvents(app, events)
	})
	if errors.Is(err, spillway.ErrNotFound) { // which says it all
		return err
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", ref, err)
	}
	s.tell(app, events)
	return nil
}

// aside ends the message of an App whose spec is not what serves. It was a release, so it is no wish until it changes.
const aside = "; the spec is another release, and is deployed again only when it changes"

// aside reports whether a rollback left an app at rest with a release that its spec does not say, as far as that was read.
func (s *Store) aside(app *v1alpha1.App, st rollout.Status) bool {
	if !st.Held || st.Phase != spillway.Healthy || st.Rollout != nil || st.Queue != nil || meta.FindStatusCondition(app.Status.Conditions, v1alpha1.Stalled) != nil {
		return false
	}
	s.mu.Lock()
	var serves *spillway.Release
	if h := s.shelf[v1alpha1.RefOf(app.Name)]; h != nil {
		serves = h.releases[st.Stable]
	}
	s.mu.Unlock()
	if serves == nil {
		return false
	}
	file, err := specOf(serves.File)
	return err == nil && file != nil && !same(app.Spec.Raw, file)
}

// describe says for people and tools what a status means.
func describe(app *v1alpha1.App, st rollout.Status, events []spillway.Event) {
	a := &app.Status
	a.Phase, a.Stable, a.Candidate, a.Weight = st.Phase, st.Stable, 0, ""
	if r := st.Rollout; r != nil {
		a.Candidate, a.Weight = r.Release, asked(st).String()
	}
	health := message(app, v1alpha1.Degraded) // of an earlier save; "" when it was not
	for _, e := range events {
		if e.Kind == spillway.EventHealth {
			health = cut(e.Text, longest)
		}
	}
	a.Message = cut(sentence(st, health, events), longest)
	if c := meta.FindStatusCondition(a.Conditions, v1alpha1.Stalled); c != nil && st.Rollout == nil && st.Phase != spillway.Destroying {
		a.Message = refusal(c.Message)
	}
	degraded := st.Phase == spillway.Degraded
	switch {
	case st.Phase == spillway.Destroying:
		set(app, v1alpha1.Ready, false, "Destroying", a.Message)
	case st.Stable == 0:
		set(app, v1alpha1.Ready, false, "NothingServes", "no release serves yet")
	case degraded:
		set(app, v1alpha1.Ready, false, "Degraded", cmp.Or(health, "the promised capacity is not there"))
	default:
		set(app, v1alpha1.Ready, true, "Serving", fmt.Sprintf("release %d serves", st.Stable))
	}
	if degraded {
		set(app, v1alpha1.Degraded, true, "CapacityMissing", cmp.Or(health, "the promised capacity is not there"))
	} else {
		set(app, v1alpha1.Degraded, false, "AtCapacity", "")
	}
	switch {
	case st.Rollout != nil:
		set(app, v1alpha1.Progressing, true, string(cmp.Or(st.Phase, spillway.Progressing)), a.Message)
		set(app, v1alpha1.Reconciling, true, string(cmp.Or(st.Phase, spillway.Progressing)), a.Message)
	case st.Queue != nil:
		set(app, v1alpha1.Progressing, true, "Waiting", a.Message)
		meta.RemoveStatusCondition(&a.Conditions, v1alpha1.Reconciling)
	default:
		set(app, v1alpha1.Progressing, false, "AtRest", "")
		meta.RemoveStatusCondition(&a.Conditions, v1alpha1.Reconciling)
	}
}

// message is that of a condition, "" when there is none.
func message(app *v1alpha1.App, kind string) string {
	if c := meta.FindStatusCondition(app.Status.Conditions, kind); c != nil {
		return c.Message
	}
	return ""
}

// asked is the weight that the engine asked for of the candidate.
func asked(st rollout.Status) spillway.Share {
	r := st.Rollout
	step := r.Step
	if !r.Routed {
		step--
	}
	if st.Phase == spillway.RollingBack || step < 0 || step >= len(r.Steps) {
		return 0
	}
	return r.Steps[step].Weight
}

// sentence says how an app is.
func sentence(st rollout.Status, health string, events []spillway.Event) string {
	if st.Phase == spillway.Destroying {
		return "the app is being destroyed: what runs of it is stopped, then it is forgotten"
	}
	if r := st.Rollout; r != nil {
		track := ""
		if r.Track != "" {
			track = " on track " + r.Track
		}
		switch {
		case st.Phase == spillway.RollingBack:
			return fmt.Sprintf("release %d%s goes back: %s", r.Release, track, r.Reason)
		case st.Phase == spillway.Paused:
			return fmt.Sprintf("release %d%s rests at %s: %s", r.Release, track, asked(st), r.Reason)
		case st.Phase == spillway.Promoting:
			return fmt.Sprintf("release %d%s has all users and is watched", r.Release, track)
		}
		return fmt.Sprintf("release %d%s is at %s, step %d of %d", r.Release, track, asked(st), r.Step+1, len(r.Steps))
	}
	if health != "" && st.Phase == spillway.Degraded {
		return health
	}
	if st.Queue != nil {
		return fmt.Sprintf("release %d waits", st.Queue.Release)
	}
	if l := st.Last; l != nil {
		text := fmt.Sprintf("release %d: %s", l.Release, l.Outcome)
		if l.Reason != "" && l.Outcome != spillway.Succeeded {
			text += ", " + l.Reason
		}
		return text
	}
	if len(events) > 0 {
		return events[len(events)-1].Text
	}
	return ""
}

// appendEvents numbers and keeps events, and lets the oldest go that there is no room for. The newest that says who
// was given what stays in any case.
func appendEvents(app *v1alpha1.App, events []spillway.Event) error {
	st := &app.Status
	if st.NewestEvent == 0 && len(events) > 0 { // above those of an App of this name that is gone
		st.NewestEvent = time.Now().UnixMilli()
	}
	for _, event := range events {
		st.NewestEvent++
		event.ID, event.App, event.Text = st.NewestEvent, v1alpha1.RefOf(app.Name), cut(event.Text, longest)
		text, err := document(event)
		if err == nil && len(text.Raw) > edgeBytes {
			event.Edges = nil
			text, err = document(event)
		}
		if err != nil {
			return err
		}
		st.Events = append(st.Events, text)
	}
	return bound(app)
}

// bound keeps an App small enough for the cluster. ErrInvalid when it is too large without its events.
func bound(app *v1alpha1.App) error {
	all := app.Status.Events
	app.Status.Events = nil
	rest, err := document(app)
	if err != nil {
		return err
	}
	if len(rest.Raw) > hardBytes {
		memory := 0
		if app.Status.Memory != nil {
			memory = len(app.Status.Memory.Raw)
		}
		return fmt.Errorf("the App %s would have %d KiB, and %d KiB is the most: the memory of the engine is %d KiB of it, the spec %d KiB: %w",
			app.Name, len(rest.Raw)>>10, hardBytes>>10, memory>>10, len(app.Spec.Raw)>>10, spillway.ErrInvalid)
	}
	room, keep := min(eventBytes, softBytes-len(rest.Raw)), len(all)
	for keep > 0 && len(all)-keep < KeptEvents && room >= len(all[keep-1].Raw) {
		keep--
		room -= len(all[keep].Raw) + 1
	}
	app.Status.Events = all[keep:]
	route := func(text apiextensions.JSON) bool { return bytes.Contains(text.Raw, []byte(`"kind":"route"`)) }
	if !slices.ContainsFunc(app.Status.Events, route) {
		for i := keep - 1; i >= 0; i-- {
			if route(all[i]) {
				app.Status.Events = append([]apiextensions.JSON{all[i]}, app.Status.Events...)
				break
			}
		}
	}
	return nil
}

// cut is a text of at most so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	end := most - len("…")
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// told is an Event that is made of events.
type told struct{ kind, reason, action, note string }

// tell makes Events of events, for those who look at the cluster. Those of one write that differ by their texts alone are
// one: a recorder would count them and keep the first text.
func (s *Store) tell(app *v1alpha1.App, events []spillway.Event) {
	if s.recorder == nil {
		return
	}
	var list []told
	for _, e := range events {
		if e.Kind == spillway.EventRoute { // it is for who asks later
			continue
		}
		t := told{"Normal", camel(string(e.Kind)), camel(string(e.Kind)), e.Text}
		switch {
		case e.Kind == spillway.EventFinished && e.Outcome != "":
			t.reason = camel(string(e.Outcome))
			if e.Outcome == spillway.RolledBack || e.Outcome == spillway.Failed {
				t.kind = "Warning"
			}
		case e.Kind == spillway.EventProblem || e.Kind == spillway.EventAborting:
			t.kind = "Warning"
		}
		same := func(other told) bool { return other.kind == t.kind && other.reason == t.reason }
		if i := slices.IndexFunc(list, same); i >= 0 {
			list[i].note += "; " + t.note
		} else {
			list = append(list, t)
		}
	}
	for _, t := range list {
		s.recorder.Eventf(app, nil, t.kind, t.reason, t.action, "%s", cut(t.note, 1000))
	}
}

// camel makes RolledBack of rolled-back.
func camel(words string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(words, "-") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
