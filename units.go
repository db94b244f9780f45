package spillway

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that reads and prints as "90s", "10m" or "1h30m" in text, JSON and YAML.
type Duration time.Duration

// MarshalText prints the shortest form: "10m", not "10m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration like 30s or 10m: %w", text, ErrInvalid)
	}
	*d = Duration(v)
	return nil
}

// String prints the shortest form that UnmarshalText reads back to the same value.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Share is a part of a whole in buckets of 1/10,000: 0 is nothing, 500 is 5 %, Whole is everything.
// A cohort key hashes to a bucket in [0, Whole); a weight of w means the buckets [0, w).
type Share int

// Whole is the share that is everything; the weights of the backends of a route sum to it.
const Whole Share = 10_000

// Percent makes a share of whole percents: Percent(5) is 5 %.
func Percent(p int) Share { return Share(p * 100) }

// ParseShare reads "5%", "0.5%", "12.25%" (0 to 100 %, at most two decimals). The sign % is required.
func ParseShare(s string) (Share, error) {
	digits, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) { // so that NaN is refused too
		return 0, fmt.Errorf("%q is not a share like 5%% or 0.5%% (0%% to 100%%): %w", s, ErrInvalid)
	}
	share := Share(v*100 + 0.5)
	if d := v*100 - float64(share); d > 1e-6 || d < -1e-6 {
		return 0, fmt.Errorf("%q is finer than 0.01%%: %w", s, ErrInvalid)
	}
	return share, nil
}

// String prints "5%", "0.5%", "12.25%".
func (s Share) String() string {
	return strconv.FormatFloat(float64(s)/100, 'f', -1, 64) + "%"
}

// MarshalText prints the percent form.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the percent form.
func (s *Share) UnmarshalText(text []byte) (err error) {
	*s, err = ParseShare(string(text))
	return err
}

// Of gives how many of n things the share is, rounded up: Percent(5).Of(4) is 1, Share(0).Of(4) is 0,
// Percent(50).Of(5) is 3, Whole.Of(n) is n.
func (s Share) Of(n int) int { return (int(s)*n + int(Whole) - 1) / int(Whole) }

// Bytes is an amount of memory or disk in bytes; it reads "512Mi", "1Gi", "500M", "1024" and prints the
// largest binary unit that divides it.
type Bytes int64

var byteUnits = []struct {
	suffix string
	factor int64
}{
	{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"G", 1e9}, {"M", 1e6}, {"K", 1e3}, {"B", 1}, {"", 1},
}

// ParseBytes reads an amount with one of the suffixes Gi Mi Ki G M K GB MB KB B or none.
func ParseBytes(s string) (Bytes, error) {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.factor {
			break
		}
		return Bytes(n * u.factor), nil
	}
	return 0, fmt.Errorf("%q is not an amount of bytes like 512Mi or 1Gi: %w", s, ErrInvalid)
}

// String prints "512Mi", "1Gi", "1500".
func (b Bytes) String() string {
	for _, u := range byteUnits[:3] {
		if b != 0 && int64(b)%u.factor == 0 {
			return strconv.FormatInt(int64(b)/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText prints the form of String.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads what ParseBytes reads.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBytes(string(text))
	return err
}

// Milli is an amount of CPU in thousandths of a core: "1" is 1000, "250m" is 250, "0.5" is 500.
type Milli int64

// ParseMilli reads "250m", "1", "0.5".
func ParseMilli(s string) (Milli, error) {
	digits, milli := strings.CutSuffix(s, "m")
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(v >= 0 && v <= 1e6) {
		return 0, fmt.Errorf("%q is not an amount of CPU like 1, 0.5 or 250m: %w", s, ErrInvalid)
	}
	if milli {
		return Milli(v), nil
	}
	return Milli(v*1000 + 0.5), nil
}

// String prints "1" or "250m".
func (m Milli) String() string {
	if m%1000 == 0 {
		return strconv.FormatInt(int64(m/1000), 10)
	}
	return strconv.FormatInt(int64(m), 10) + "m"
}

// MarshalText prints the form of String.
func (m Milli) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what ParseMilli reads.
func (m *Milli) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMilli(string(text))
	return err
}

// Count is a number of things that a file gives either as a number ("3") or as a share of the
// service's size ("25%"). The zero value is the number 0.
type Count struct {
	N     int   // used when Share is 0
	Share Share // 0 = N counts
}

// ParseCount reads "3" or "25%".
func ParseCount(s string) (Count, error) {
	if strings.HasSuffix(strings.TrimSpace(s), "%") {
		share, err := ParseShare(s)
		return Count{Share: share}, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 0 {
		return Count{}, fmt.Errorf("%q is not a number of replicas like 3 or a share like 25%%: %w", s, ErrInvalid)
	}
	return Count{N: n}, nil
}

// Of gives the number for a service of the given size; shares round up: {Share: 25%}.Of(5) is 2.
func (c Count) Of(size int) int {
	if c.Share > 0 {
		return c.Share.Of(size)
	}
	return c.N
}

// String prints "3" or "25%".
func (c Count) String() string {
	if c.Share > 0 {
		return c.Share.String()
	}
	return strconv.Itoa(c.N)
}

// MarshalText prints the form of String.
func (c Count) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what ParseCount reads.
func (c *Count) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCount(string(text))
	return err
}
