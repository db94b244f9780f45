package main

import (
	"fmt"
	"io"
	"strings"
)

// live is a block of lines at the end of a terminal that is redrawn in place, with ordinary lines
// scrolling above it. Off a terminal the block is never drawn and only the ordinary lines appear.
type live struct {
	out   io.Writer
	on    bool // a terminal
	drawn int  // lines of the block on the screen
}

// line prints an ordinary line above the block.
func (l *live) line(format string, args ...any) {
	io.WriteString(l.out, l.erase()+fmt.Sprintf(format, args...)+"\n")
}

// draw replaces the block. Lines are cut to the width of the terminal, because a line that wraps could
// not be taken back, and the block to its height for the same reason. paint may colour a cut line.
func (l *live) draw(lines []string, paint func(i int, line string) string) {
	if !l.on {
		return
	}
	columns, rows := terminalSize(l.out)
	var b strings.Builder
	b.WriteString(l.erase())
	for i, line := range lines[:min(len(lines), max(rows-1, 1))] {
		b.WriteString(paint(i, cut(clean(line), columns-1)) + "\n")
		l.drawn++
	}
	io.WriteString(l.out, b.String())
}

// clear takes the block off the screen.
func (l *live) clear() { io.WriteString(l.out, l.erase()) }

// erase gives the codes that move to the start of the block and clear all below it.
func (l *live) erase() string {
	if l.drawn == 0 {
		return ""
	}
	n := l.drawn
	l.drawn = 0
	return fmt.Sprintf("\x1b[%dA\r\x1b[J", n)
}
