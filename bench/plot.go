package main

import (
	"fmt"
	"slices"
	"strings"
)

// The picture, in pixels.
const (
	plotWidth  = 760
	labelWidth = 200
	valueWidth = 110
	barHeight  = 18
	barPitch   = 24
	panelHead  = 34
)

// plot draws the CPU per request of each proxy in three cases, a bar each, as SVG.
func plot(r results) string {
	var body strings.Builder
	y := 10
	for _, panel := range []struct{ testCase, title string }{
		{"small", "HTTP/1.1, 200 B"}, {"large", "HTTP/1.1, 64 KB"}, {"h2", "TLS, HTTP/2, 200 B"},
	} {
		y = drawPanel(&body, r, panel.testCase, panel.title, y)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" font-family="system-ui, sans-serif" font-size="13">`+"\n", plotWidth, y+24)
	b.WriteString("<title>CPU per request, in microseconds: less is better</title>\n")
	b.WriteString("<style>text{fill:#1f2328}.note{fill:#59636e}.bar{fill:#9aa7b4}.own{fill:#1f883d}@media (prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.bar{fill:#57606a}.own{fill:#3fb950}}</style>\n")
	b.WriteString(body.String())
	note := fmt.Sprintf("CPU per request in µs, all processes of the proxy; less is better. %d cores of %s, %s", r.Machine.Cores, r.Machine.CPU, strings.SplitN(r.Date, "T", 2)[0])
	fmt.Fprintf(&b, `<text class="note" x="8" y="%d" font-size="11">%s</text>`+"\n</svg>\n", y+12, escape(note))
	return b.String()
}

// drawPanel draws one case below y and gives where it ends. Without figures it draws nothing.
func drawPanel(b *strings.Builder, r results, testCase, heading string, y int) int {
	type bar struct {
		peer string
		cpu  float64
	}
	var bars []bar
	for _, peer := range everyPeer() {
		if cpu := r.median(subject{peer, testCase}, cpuOf); cpu > 0 {
			bars = append(bars, bar{peer, cpu})
		}
	}
	if len(bars) == 0 {
		return y
	}
	slices.SortStableFunc(bars, func(a, b bar) int { return compareFloats(a.cpu, b.cpu) })
	most := bars[len(bars)-1].cpu
	fmt.Fprintf(b, `<text x="8" y="%d" font-weight="600">%s</text>`+"\n", y+18, escape(heading))
	y += panelHead
	for _, one := range bars {
		class := "bar"
		if strings.HasPrefix(one.peer, "spillway") {
			class = "own"
		}
		width := one.cpu / most * (plotWidth - labelWidth - valueWidth)
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, y+barHeight-4, escape(title(one.peer)))
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, class, labelWidth, y, width, barHeight)
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%.1f</text>`+"\n", labelWidth+width+6, y+barHeight-4, one.cpu)
		y += barPitch
	}
	return y + 8
}

// escape makes a text fit for XML.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;").Replace(s)
}
