package proxy

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// sent is a frame of HTTP/2 of a client.
func sent(kind, flags byte, payload int) string {
	return string([]byte{byte(payload >> 16), byte(payload >> 8), byte(payload), kind, flags, 0, 0, 0, 1}) + strings.Repeat("x", payload)
}

func TestAllowance(t *testing.T) {
	ask, takeBack, body, empty := sent(frameHeaders, 5, 30), sent(frameReset, 0, 4), sent(frameData, 0, 100), sent(frameData, 0, 0)
	settings, room, ping := sent(4, 0, 0), sent(8, 0, 4), sent(6, 0, 8)
	const hour = 3600
	tests := []struct {
		name   string
		each   string        // what the client sends again and again
		pause  time.Duration // after each
		frames int           // of answers that it gets for each
		answer int           // bytes that it gets for each
		times  int
		from   int // it is cut off from here on; 0 = never
	}{
		{name: "requests", each: ask, times: 100_000},
		{name: "requests and their bodies", each: ask + body + body, times: 100_000},
		{name: "a body in small pieces", each: body, times: 100_000},
		{name: "requests, with a ping and room for each answer", each: ask + room + room + ping, times: 100_000},
		{name: "a download", each: room + room, frames: 1, answer: 16 << 10, times: 100_000},
		{name: "small messages, with a ping and room for each", each: ping + room + room, frames: 1, answer: 30, times: 100_000},
		{name: "half of the requests are taken back", each: ask + ask + takeBack, times: 100_000},
		{name: "all are taken back, ten a second", each: ask + takeBack, pause: 100 * time.Millisecond, times: hour},
		{name: "a ping a second", each: ping, pause: time.Second, times: hour},
		{name: "rapid reset", each: ask + takeBack, times: 1_000, from: 250},
		{name: "settings", each: settings, times: 10_000, from: 1_000},
		{name: "answers to pings are small", each: ping, answer: 17, times: 10_000, from: 1_000},
		{name: "empty frames", each: empty, times: 10_000, from: 1_000},
		{name: "continuations of nothing", each: sent(9, 0, 0), times: 10_000, from: 1_000},
		{name: "frames of no known type", each: sent(0x77, 0, 8), times: 10_000, from: 1_000},
		{name: "empty frames, a hundred a second", each: empty, pause: 10 * time.Millisecond, times: 10_000, from: 1_970},
	}
	for _, tt := range tests {
		for _, piece := range []int{1 << 20, 7} {
			synctest.Test(t, func(t *testing.T) {
				a := newAllowance()
				text := string(preface)
				for i := range tt.times {
					text += tt.each
					for len(text) > 0 {
						n := min(piece, len(text))
						if err := a.read([]byte(text[:n])); err == nil {
							text = text[n:]
							continue
						}
						if tt.from == 0 || i+1 < tt.from || i+1 > tt.from+tt.from/50 {
							t.Errorf("%s, in pieces of %d: cut off at the %d. time, want %d", tt.name, piece, i+1, tt.from)
						}
						return
					}
					a.answered(tt.frames, tt.answer)
					<-time.After(tt.pause)
				}
				if tt.from > 0 {
					t.Errorf("%s, in pieces of %d: never cut off", tt.name, piece)
				}
			})
		}
	}
}

// TestAllowance_IsNotSavedUp: who was useful for long has no more than mostAllowance.
func TestAllowance_IsNotSavedUp(t *testing.T) {
	a := newAllowance()
	useful, useless := sent(frameHeaders, 5, 30), sent(4, 0, 0)
	if err := a.read([]byte(string(preface) + strings.Repeat(useful, 100_000))); err != nil {
		t.Fatal(err)
	}
	if err := a.read([]byte(strings.Repeat(useless, mostAllowance+1_000))); err != errFlood {
		t.Errorf("%d frames are read after it: %v", mostAllowance+1_000, err)
	}
}
