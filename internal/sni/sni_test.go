package sni

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/ergotls/ergotls/internal/needs"
)

func TestCheck(t *testing.T) {
	long := strings.Repeat("a.", 126)
	for name, ok := range map[string]bool{
		"": true, "localhost": true, "example.test": true, "_dns.example.test": true, "xn--bcher-kva.example.test": true, long + "a": true,
		long + "aa": false, "a b": false, "a\x00.example.test": false, "\x1b[2J": false, "a\nb": false, "b\xc3\xbccher.test": false, "\x7f": false,
	} {
		if err := Check(name); ok {
			assert.NoError(t, err, name)
		} else {
			assert.ErrorIs(t, err, ErrName, name)
			assert.NotContains(t, err.Error(), "\x1b", "nothing that a terminal obeys")
		}
	}
}

func FuzzCheck(f *testing.F) {
	needs.Corpus(f)
	f.Add("example.test")
	f.Add("a\x00b")
	f.Fuzz(func(t *testing.T, name string) {
		err := Check(name)
		if err == nil && (len(name) > maxLength || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f })) {
			t.Errorf("%q was taken", name)
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r >= 0x7f }) {
			t.Errorf("the error for %q is not printable", name)
		}
	})
}
