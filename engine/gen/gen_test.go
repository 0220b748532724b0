package gen

import (
	"crypto/tls"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStrings(t *testing.T) {
	const node = "t1node@localhost"
	for want, value := range map[string]fmt.Stringer{
		"'hello'":                         Atom("hello"),
		"<10D36D10.0.1001>":               PID{Node: node, ID: 1001, Creation: 1685523227},
		"<10D36D10.1.2>":                  PID{Node: node, ID: 1<<32 + 2},
		"<10D36D10.'example'>":            ProcessID{Name: "example", Node: node},
		"Ref#<10D36D10.128194.23952.0>":   Ref{Node: node, ID: [3]uint64{0x1f4c2, 0x5d90, 0}},
		"Alias#<10D36D10.128194.23952.0>": Alias{Node: node, ID: [3]uint64{0x1f4c2, 0x5d90, 0}},
		"some_Name":                       Env("some_Name"),
		"trace":                           LogLevelTrace,
		"system":                          LogLevelSystem,
		"disabled":                        LogLevelDisabled,
		"level(9)":                        LogLevel(9),
	} {
		assert.Equal(t, want, value.String())
	}
}

func TestHost(t *testing.T) {
	for name, want := range map[Atom]string{"node@host": "host", "node": "", "": "", "node@a.b": "a.b"} {
		assert.Equal(t, want, name.Host())
	}
}

func TestCertManager(t *testing.T) {
	first := tls.Certificate{Certificate: [][]byte{{1}}}
	second := tls.Certificate{Certificate: [][]byte{{2}}}
	m := CreateCertManager(first)
	get := m.GetCertificateFunc()
	got, err := get(nil)
	assert.NoError(t, err)
	assert.Equal(t, first, *got)

	var readers sync.WaitGroup
	readers.Go(func() {
		for range 100 {
			cert, _ := get(nil)
			assert.Len(t, cert.Certificate, 1)
		}
	})
	m.Update(second)
	readers.Wait()
	got, err = get(nil)
	assert.NoError(t, err)
	assert.Equal(t, second, *got, "the function follows")
	assert.Equal(t, second, m.GetCertificate())
}
