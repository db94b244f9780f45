package spillway_test

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/quick"
	"time"

	"github.com/spillway-dev/spillway"
)

func TestParseShare_ReadsPercentsUpToTwoDecimals(t *testing.T) {
	for text, want := range map[string]spillway.Share{"0%": 0, "5%": 500, "0.5%": 50, "12.25%": 1225, "100%": spillway.Whole, " 7 %": 700} {
		got, err := spillway.ParseShare(text)
		if err != nil || got != want {
			t.Errorf("%q = %d, %v; want %d", text, got, err, want)
		}
		if back, err := spillway.ParseShare(got.String()); err != nil || back != got {
			t.Errorf("%q prints as %q, which reads as %d, %v", text, got, back, err)
		}
	}
	for _, text := range []string{"", "5", "-1%", "101%", "0.001%", "x%", "NaN%", "Inf%"} {
		if _, err := spillway.ParseShare(text); !errors.Is(err, spillway.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", text, err)
		}
	}
}

func TestShare_OfRoundsUpAndNeverBeyondTheWhole(t *testing.T) {
	check := func(share, size uint16) bool {
		s, n := spillway.Share(share%10001), int(size%1000)
		of := s.Of(n)
		return of <= n && of*int(spillway.Whole) >= int(s)*n && (of-1)*int(spillway.Whole) < int(s)*n
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 20000}); err != nil {
		t.Error(err)
	}
}

func TestUnits_PrintWhatTheyRead(t *testing.T) {
	type all struct {
		D spillway.Duration
		B spillway.Bytes
		M spillway.Milli
		C spillway.Count
		S spillway.Share
	}
	text := `{"D":"1h30m","B":"512Mi","M":"250m","C":"25%","S":"0.5%"}`
	var v all
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	want := all{spillway.Duration(90 * time.Minute), 512 << 20, 250, spillway.Count{Share: spillway.Percent(25)}, 50}
	if v != want {
		t.Errorf("read %+v, want %+v", v, want)
	}
	if back, err := json.Marshal(v); err != nil || string(back) != text {
		t.Errorf("printed %s, %v; want %s", back, err, text)
	}
	for _, d := range []time.Duration{0, time.Second, 10 * time.Minute, time.Hour, 90 * time.Minute, 1500 * time.Millisecond, time.Hour + time.Second} {
		var back spillway.Duration
		if err := back.UnmarshalText([]byte(spillway.Duration(d).String())); err != nil || time.Duration(back) != d {
			t.Errorf("%s prints as %s, which reads as %s, %v", d, spillway.Duration(d), back, err)
		}
	}
}

func TestUnits_RefuseWhatIsNotOne(t *testing.T) {
	for _, text := range []string{"", "x", "-1", "1.5Gi", "9999999999Gi", "1 T"} {
		if _, err := spillway.ParseBytes(text); !errors.Is(err, spillway.ErrInvalid) {
			t.Errorf("bytes %q: %v", text, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "NaN", "1e9", "m"} {
		if _, err := spillway.ParseMilli(text); !errors.Is(err, spillway.ErrInvalid) {
			t.Errorf("cpu %q: %v", text, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5", "300%"} {
		if _, err := spillway.ParseCount(text); !errors.Is(err, spillway.ErrInvalid) {
			t.Errorf("count %q: %v", text, err)
		}
	}
}

func TestFingerprint_ChangesWithWhatAReplicaDependsOnAndNothingElse(t *testing.T) {
	base := func() spillway.Release {
		s := spillway.Service{Name: "www", Run: spillway.Command{Shell: "./www"}, Env: map[string]string{"A": "1"}, Scale: 2, Health: spillway.DefaultProbe(), Stop: spillway.DefaultStop()}
		s.Health.Path = "/healthz"
		return spillway.Release{Number: 3, Config: spillway.App{Services: []spillway.Service{s}}, Artefacts: map[string]spillway.Artefact{"www": {Digest: "sha256:a", Dir: "/x"}}}
	}
	print := base().Fingerprint("www")
	if stored := "c7f30459b73d9a88c363c5091b0d297f49798230134d57f3e4b4459d8ffd7f99"; print != stored {
		t.Errorf("a release that is stored would get another fingerprint, %s: all its replicas would be restarted", print)
	}
	for name, change := range map[string]func(*spillway.Release){
		"artefact": func(r *spillway.Release) { r.Artefacts["www"] = spillway.Artefact{Digest: "sha256:b"} },
		"image": func(r *spillway.Release) {
			r.Artefacts["www"] = spillway.Artefact{Digest: "sha256:a", Image: "r/www@sha256:b"}
		},
		"port":   func(r *spillway.Release) { r.Config.Services[0].Port = 80 },
		"env":    func(r *spillway.Release) { r.Config.Services[0].Env["A"] = "2" },
		"run":    func(r *spillway.Release) { r.Config.Services[0].Run.Shell = "./www -v" },
		"needs":  func(r *spillway.Release) { r.Config.Services[0].Needs = []string{"db"} },
		"limits": func(r *spillway.Release) { r.Config.Services[0].Limits.Memory = 1 << 20 },
		"probed": func(r *spillway.Release) { r.Config.Services[0].Protocol = spillway.H2C },
	} {
		r := base()
		if change(&r); r.Fingerprint("www") == print {
			t.Errorf("%s: the fingerprint is the same", name)
		}
	}
	for name, change := range map[string]func(*spillway.Release){
		"scale":                 func(r *spillway.Release) { r.Config.Services[0].Scale = 9 },
		"host":                  func(r *spillway.Release) { r.Config.Services[0].Host = []string{"a.test"} },
		"strategy":              func(r *spillway.Release) { r.Config.Services[0].Strategy = spillway.Canary },
		"number":                func(r *spillway.Release) { r.Number = 9 },
		"not probed in another": func(r *spillway.Release) { r.Config.Services[0].Protocol = spillway.HTTP },
	} {
		r := base()
		if change(&r); r.Fingerprint("www") != print {
			t.Errorf("%s: the fingerprint differs", name)
		}
	}
	if base().Fingerprint("nope") != "" {
		t.Error("a service that is not there has a fingerprint")
	}
}
