package view

import (
	"fmt"
	"strconv"
	"strings"
)

// Token is a lock's token on the command line: generation.counter as people see it, or the number that JSON has.
type Token uint64

const counterBits = 48

// String implements pflag.Value.
func (t *Token) String() string {
	if *t == 0 {
		return ""
	}
	return TokenText(uint64(*t))
}

// Set implements pflag.Value.
func (t *Token) Set(text string) error {
	if generation, counter, ok := strings.Cut(text, "."); ok {
		g, err := strconv.ParseUint(generation, 10, 64-counterBits)
		if err != nil {
			return fmt.Errorf("%q is not GENERATION.COUNTER", text)
		}
		c, err := strconv.ParseUint(counter, 10, counterBits)
		if err != nil {
			return fmt.Errorf("%q is not GENERATION.COUNTER", text)
		}
		*t = Token(g<<counterBits | c)
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is no token such as 1.89", text)
	}
	*t = Token(n)
	return nil
}

// Type implements pflag.Value.
func (t *Token) Type() string { return "token" }

// TokenText is a token as errors, events and logs show it.
func TokenText(t uint64) string { return fmt.Sprintf("%d.%d", t>>counterBits, t&(1<<counterBits-1)) }
