package main

import (
	"bytes"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var report = regexp.MustCompile(`^serving certificate (\w+)
loaded
a new connection sees certificate (\w+)
rejected .*it is neither PEM nor DER
a new connection still sees certificate (\w+)
the first connection still echoes, over certificate (\w+)
$`)

func TestDemonstration(t *testing.T) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	defer goleak.VerifyNone(t, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
	var out bytes.Buffer
	demonstrate(&out)
	said := report.FindStringSubmatch(out.String())
	require.NotNil(t, said, out.String())
	assert.NotEqual(t, said[1], said[2], "a new one is served")
	assert.Equal(t, said[2], said[3], "a broken file changes nothing")
	assert.Equal(t, said[1], said[4], "the open connection stays")
}
