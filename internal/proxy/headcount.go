package proxy

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/spillway-dev/spillway"
)

const (
	// headBits is the size of the bitmap in which users are counted.
	headBits = 8192
	// leastBudget is what a candidate may cost however few users there are: fewer failures are no proof.
	leastBudget = 3
)

// headcount counts distinct users in little memory: each sets one bit of a bitmap, and from the bits that
// are still zero follows how many users there were about (linear counting: Whang, Vander-Zanden and
// Taylor 1990). It is right to 2 % up to 30,000 users. It cannot tell more than 73,817: then all but one
// of the bits are set, and it stays there. As the budget is a share of the users, too few is the safe side.
type headcount struct {
	bits [headBits / 64]uint64
}

// add counts a user by its hash, and reports whether that changed the count.
func (c *headcount) add(key uint64) bool {
	i := key >> 51 // the 13 upper bits: buckets are made of the others
	before := c.bits[i/64]
	c.bits[i/64] |= 1 << (i % 64)
	return c.bits[i/64] != before
}

// size is about how many users were counted: n = -m ln(z/m) with z of the m bits zero. Worked example:
// with 4,096 of 8,192 bits zero, 5,678 users.
func (c *headcount) size() int64 {
	zeros := headBits
	for _, word := range c.bits {
		zeros -= bits.OnesCount64(word)
	}
	return int64(-headBits * math.Log(float64(max(zeros, 1))/headBits))
}

// bytes is the bitmap as it is stored; nil when nobody was counted.
func (c *headcount) bytes() []byte {
	if c.bits == (headcount{}).bits {
		return nil
	}
	var text []byte
	for _, word := range c.bits {
		text = binary.LittleEndian.AppendUint64(text, word)
	}
	return text
}

// headcountOf reads what bytes made. Of another size it is nobody.
func headcountOf(text []byte) (c headcount) {
	if len(text) == headBits/8 {
		for i := range c.bits {
			c.bits[i] = binary.LittleEndian.Uint64(text[8*i:])
		}
	}
	return c
}

// count counts the user behind an answer when the budget is a share of the users. t.mu is held.
func (t *trial) count(o outcome) {
	if o.Known && t.terms.Users > 0 && t.users.add(o.Key) {
		t.spend()
	}
}

// spend makes the budget of the terms what the users seen so far allow: of 0.1 % and 7,012 users 7
// requests. t.mu is held.
func (t *trial) spend() {
	if t.terms.Users <= 0 {
		return
	}
	n := t.users.size()
	t.terms.Budget = max(leastBudget, int(n*int64(t.terms.Users)/int64(spillway.Whole)))
	t.state = t.state.Among(n)
}
