package http1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// bodies are bodies that are taken.
var bodies = []struct {
	text    string
	length  int64
	want    string
	trailer Fields
}{
	{"", 0, "", nil},
	{"hello", 5, "hello", nil},
	{"5\r\nhello\r\n0\r\n\r\n", InChunks, "hello", nil},
	{"0\r\n\r\n", InChunks, "", nil},
	{"1\r\nh\r\n000a\r\nello world\r\n0000\r\n\r\n", InChunks, "hello world", nil},
	{"A;a=\"b\";c\r\n0123456789\r\n0;x\r\n\r\n", InChunks, "0123456789", nil},
	{"1\r\n\n\r\n2\r\n\r\n\r\n0\r\n\r\n", InChunks, "\n\r\n", nil},
	{"1\r\nh\r\n0\r\nX-A: 1\r\nx-a:\t2 \r\n\r\n", InChunks, "h", Fields{{"X-A", "1"}, {"x-a", "2"}}},
	{"0\r\nContent-Length: 1\r\nX: 1\r\nHost: b\r\nTransfer-Encoding: x\r\nTrailer: x\r\n\r\n", InChunks, "", Fields{{"X", "1"}}},
}

func TestBody_EndsWhereItSays(t *testing.T) {
	for _, row := range bodies {
		for cut := range len(row.text) + 1 {
			var in Reader
			in.Reset(&parts{row.text[:cut], row.text[cut:] + "next"}, nil)
			var b Body
			b.Start(&in, row.length)
			got, err := io.ReadAll(&b)
			if err != nil || string(got) != row.want || !slices.Equal(b.Trailer, row.trailer) || !b.Done() {
				t.Errorf("%q cut at %d: %q %v %v", row.text, cut, got, b.Trailer, err)
			}
			if rest, _ := io.ReadAll(&in); string(rest) != "next" {
				t.Errorf("%q cut at %d: left is %q", row.text, cut, rest)
			}
		}
	}
}

// TestBody_ThatIsCutOffIsNotWhole: at whichever byte.
func TestBody_ThatIsCutOffIsNotWhole(t *testing.T) {
	for _, row := range bodies {
		for cut := range len(row.text) {
			var in Reader
			in.Reset(strings.NewReader(row.text[:cut]), nil)
			got, _, err := readBody(&in, row.length)
			if err != io.ErrUnexpectedEOF || !strings.HasPrefix(row.want, string(got)) {
				t.Errorf("%q: %q %v", row.text[:cut], got, err)
			}
		}
	}
}

func TestBody_ToTheEndIsAllThereIs(t *testing.T) {
	for n := range 3 {
		text := strings.Repeat("0\r\n\r\n", n)
		var in Reader
		in.Reset(strings.NewReader(text), nil)
		if got, _, err := readBody(&in, ToTheEnd); string(got) != text || err != nil {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
}

func TestBody_SaysWhatIsWrongWithChunks(t *testing.T) {
	const size, end = "the size of a chunk is not a hexadecimal number", "a line ends without CR LF"
	for text, want := range map[string]string{
		"\r\n":                            size,
		"g\r\n":                           size,
		"-1\r\n":                          size,
		"0x1\r\nh\r\n":                    size,
		" 1\r\nh\r\n":                     size,
		"1 \r\nh\r\n":                     size,
		"1 ;a\r\nh\r\n":                   size,
		"1;\x00\r\nh\r\n":                 size,
		"1;a\rb\r\nh\r\n":                 size,
		";a\r\n":                          size,
		"400000000000000\r\nh":            size, // 1<<58
		"00000000000000001\r\nh\r\n":      size,
		"1\nh\r\n":                        end,
		"\n":                              end,
		"1\r\nh\n0\r\n\r\n":               end,
		"1\r\nh\r\n0\n\r\n":               end,
		"1\r\nh\r\n0\r\n\n":               end,
		"1\r\nhe\r\n":                     "a chunk is longer than it says",
		"2\r\nh\r\n0\r\n\r\n":             end,
		"1\r\nhello\r\n":                  "a line is too long",
		"1\r\nhx\n":                       "a line ends without CR LF",
		"1\r\nh0\r\n\r\n":                 "a chunk is longer than it says",
		"1\r\nh\r\r\n":                    "a chunk is longer than it says",
		"1;" + strings.Repeat("a", 1<<20): "a line is too long",
		strings.Repeat("1;"+strings.Repeat("a", 99)+"\r\nh\r\n", 20):      "more is said about the chunks than is in them",
		"1;" + strings.Repeat("a", 2000) + "\nh":                          "a line is too long", // as in pieces
		"1;" + strings.Repeat("a", maxChunkLine-2) + "\r\nh\r\n0\r\n\r\n": "a line is too long",
		"0\r\nX\r\n\r\n":       "a header line has no colon",
		"0\r\n X: 1\r\n\r\n":   "a header line begins with white space",
		"0\r\nX : 1\r\n\r\n":   "the name of a header field has a character that cannot be in a name",
		"0\r\nX: \x01\r\n\r\n": "the value of the header field X has a control character",
		"0\r\n" + strings.Repeat("X: 1\r\n", MaxFields+1) + "\r\n":           "the trailer is too large",
		"0\r\nX: " + strings.Repeat("x", maxTrailer) + "\r\n\r\n":            "a line is too long",
		"0\r\n" + strings.Repeat("X: "+strings.Repeat("x", 4<<10)+"\r\n", 4): "the trailer is too large",
	} {
		var in Reader
		in.Reset(strings.NewReader(text), nil)
		var b Body
		b.Start(&in, InChunks)
		if _, err := io.ReadAll(&b); err == nil || err.Error() != want || !IsMalformed(err) {
			t.Errorf("%.80q: %v, want %s", text, err, want)
		}
		if _, again := b.Read(make([]byte, 1)); again == nil || again.Error() != want {
			t.Errorf("%.80q: then %v, want %s", text, again, want)
		}
	}
}

// TestBody_TakesWhatIsJustWithinItsLimits: more is among what is wrong.
func TestBody_TakesWhatIsJustWithinItsLimits(t *testing.T) {
	for name, text := range map[string]string{
		"line":    "1;" + strings.Repeat("a", maxChunkLine-3) + "\r\nh\r\n0\r\n\r\n",
		"beside":  strings.Repeat("1\r\nh\r\n", 5000) + "0\r\n\r\n",
		"digits":  "0000000000000001\r\nh\r\n0\r\n\r\n",
		"fields":  "0\r\n" + strings.Repeat("X: 1\r\n", MaxFields) + "\r\n",
		"trailer": "0\r\nX: " + strings.Repeat("x", maxTrailer-4) + "\r\n\r\n",
	} {
		var in Reader
		in.Reset(strings.NewReader(text), nil)
		if _, _, err := readBody(&in, InChunks); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBody_OfAnAnswerMayHaveSpaceBehindTheSize of a chunk, and nowhere else.
func TestBody_OfAnAnswerMayHaveSpaceBehindTheSize(t *testing.T) {
	for text, good := range map[string]bool{
		"1 \t\r\nh\r\n0  \r\n\r\n": true, "1;a \r\nh\r\n0\r\n\r\n": true, " 1\r\nh\r\n0\r\n\r\n": false, "1 ;a\r\nh\r\n0\r\n\r\n": false,
	} {
		var in Reader
		in.Reset(strings.NewReader(text), nil)
		var b Body
		b.StartLoose(&in, InChunks)
		if got, err := io.ReadAll(&b); (err == nil) != good || good && string(got) != "h" {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
}

// slow gives a byte, and then says that it took too long, in turn.
type slow struct {
	from io.Reader
	late bool
}

func (s *slow) Read(p []byte) (int, error) {
	if s.late = !s.late; s.late {
		return 0, fmt.Errorf("read: %w", os.ErrDeadlineExceeded)
	}
	return s.from.Read(p[:1])
}

// TestBody_GoesOnAfterATimeout: whoever set the time may wait longer.
func TestBody_GoesOnAfterATimeout(t *testing.T) {
	for _, row := range bodies {
		var in Reader
		in.Reset(&slow{from: strings.NewReader(row.text)}, nil)
		var b Body
		b.Start(&in, row.length)
		var got []byte
		var err error
		late := 0
		for p := make([]byte, 4); late <= len(row.text) && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)); {
			if err != nil {
				late++
			}
			var n int
			n, err = b.Read(p)
			got = append(got, p[:n]...)
		}
		if err != io.EOF || string(got) != row.want || !slices.Equal(b.Trailer, row.trailer) || late != len(row.text) {
			t.Errorf("%q: %q %v %v, late %d times", row.text, got, b.Trailer, err, late)
		}
	}
}

// TestBody_ReadyMeansThatNobodyWaits: where it says so, a read asks nothing of the connection.
func TestBody_ReadyMeansThatNobodyWaits(t *testing.T) {
	ready := 0
	for _, row := range bodies {
		for cut := range len(row.text) + 1 {
			var in Reader
			in.Reset(silent{}, []byte(row.text[:cut]))
			var b Body
			b.Start(&in, row.length)
			for b.Ready() && !b.Done() {
				ready++
				if n, err := b.Read(make([]byte, 3)); n == 0 && err != io.EOF {
					t.Errorf("%q: ready, and gives %v", row.text[:cut], err)
					break
				}
			}
			if cut == len(row.text) && !b.Done() {
				t.Errorf("%q: not ready at its end", row.text)
			}
		}
	}
	if ready == 0 {
		t.Error("nothing is ever ready")
	}
}

var errAsked = errors.New("the connection was asked")

// silent is a connection that nobody may ask.
type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, errAsked }

func TestBody_SkipTakesBytesAsRead(t *testing.T) {
	var in Reader
	in.Reset(strings.NewReader("lo"), nil)
	var b Body
	b.Start(&in, 5)
	b.Skip(3)
	if got, err := io.ReadAll(&b); string(got) != "lo" || err != nil || !b.Done() {
		t.Errorf("%q %v", got, err)
	}
	b.Start(&in, 5)
	if b.Skip(5); !b.Done() {
		t.Error("not done when all is skipped")
	}
}
