package trace

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const id, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for header, want := range map[string]string{
		"00-" + id + "-" + span + "-01":                      "00-" + id + "-" + span + "-01",
		"00-" + id + "-" + span + "-00":                      "00-" + id + "-" + span + "-00",
		"00-" + id + "-" + span + "-ff":                      "00-" + id + "-" + span + "-03", // unknown flags are not passed on
		"cc-" + id + "-" + span + "-01":                      "00-" + id + "-" + span + "-01", // a later version is answered with ours
		"cc-" + id + "-" + span + "-01-what":                 "00-" + id + "-" + span + "-01",
		"cc-" + id + "-" + span + "-01.what":                 "",
		"00-" + id + "-" + span + "-01-what":                 "",
		"00-" + id + "-" + span + "-01 ":                     "",
		"ff-" + id + "-" + span + "-01":                      "",
		"0x-" + id + "-" + span + "-01":                      "",
		"00-" + id + "-" + span + "-0":                       "",
		"00-" + id + "-" + span + "-0g":                      "",
		"00-" + id + "_" + span + "-01":                      "",
		"00_" + id + "-" + span + "-01":                      "",
		"00-" + id + "-" + span + "_01":                      "",
		"00-" + strings.ToUpper(id) + "-" + span + "-01":     "",
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01": "",
		"00-" + id + "-" + strings.Repeat("0", 16) + "-01":   "",
		"00-" + id[1:] + "-" + span + "-01":                  "",
		"00-" + id[:31] + "ä-" + span + "-01":                "",
		"":                                                   "",
		"-":                                                  "",
	} {
		c, ok := Parse(header)
		if got := c.Header(); got != want || ok != (want != "") {
			t.Errorf("Parse(%q) = %q, %v; want %q", header, got, ok, want)
		}
	}
}

func TestContext_ChildGoesOnWithATrace(t *testing.T) {
	for _, flags := range []string{"00", "01", "02", "03"} {
		parent, _ := Parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-" + flags)
		for _, chance := range []float64{0, 1} { // whoever began it has decided
			c := parent.Child(chance)
			if c.Trace != parent.Trace || c.Parent != parent.Span || c.Span == parent.Span || c.Span == (SpanID{}) || c.Flags != parent.Flags {
				t.Errorf("child of %s with chance %v: %s below %s", parent.Header(), chance, c.Header(), c.Parent)
			}
		}
	}
}

// 10,000 traces at 1 in 4: 2,500 with a standard deviation of 43; 6 of those are 260.
func TestContext_ChildBeginsATraceAndSamplesIt(t *testing.T) {
	for chance, want := range map[float64][2]int{0: {0, 0}, 1: {10000, 10000}, 0.25: {2240, 2760}} {
		sampled, known := 0, map[ID]bool{}
		for range 10000 {
			c := Context{}.Child(chance)
			if again, ok := Parse(c.Header()); !ok || again.Trace != c.Trace || again.Span != c.Span || c.Parent != (SpanID{}) {
				t.Fatalf("%q is not what it should be", c.Header())
			}
			known[c.Trace] = true
			if c.Flags&Sampled != 0 {
				sampled++
			}
		}
		if sampled < want[0] || sampled > want[1] || len(known) != 10000 {
			t.Errorf("of 10,000 traces, %d different ones, %d are sampled at %v; want %d to %d", len(known), sampled, chance, want[0], want[1])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Fuzz(func(t *testing.T, header string) {
		c, ok := Parse(header)
		if !ok {
			if c != (Context{}) {
				t.Errorf("Parse(%q) gives something that it says is nothing", header)
			}
			return
		}
		if again, ok := Parse(c.Header()); !ok || again != c {
			t.Errorf("Parse(%q).Header() = %q, which is read as %+v, %v", header, c.Header(), again, ok)
		}
	})
}
