package flags

import (
	"flag"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPort(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "4433": 4433, "65535": 65535, "65536": -1, "70000": -1, "-1": -1, "80x": -1, "": -1} {
		set := flag.NewFlagSet("", flag.ContinueOnError)
		set.SetOutput(io.Discard)
		port := portOf(set, 1)
		assert.EqualValues(t, 1, *port)
		if err := set.Parse([]string{"-port", text}); want < 0 {
			assert.ErrorContains(t, err, "a number from 0 to 65535", text)
		} else if assert.NoError(t, err) {
			assert.EqualValues(t, want, *port)
		}
	}
}
