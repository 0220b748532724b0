package act_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is an actor without a callback of its own.
type plain struct{ act.Actor }

// caller calls and inspects its targets in Init.
type caller struct {
	act.Actor
	targets []any
	errs    []error
}

func (c *caller) Init(args ...any) error {
	for _, target := range c.targets {
		_, err := c.CallWithTimeout(target, "request", 1)
		c.errs = append(c.errs, err)
	}
	_, err := c.Inspect(c.targets[0].(gen.PID))
	return err
}

// formats keeps the formats of what is logged.
type formats struct {
	mu   sync.Mutex
	seen []string
}

func (f *formats) Log(m gen.MessageLog) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, m.Format)
}

func (f *formats) Terminate() {}

func (f *formats) count(prefix string) (count int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, format := range f.seen {
		if strings.HasPrefix(format, prefix) {
			count++
		}
	}
	return count
}

func TestDefaultsLogWhatNobodyHandles(t *testing.T) {
	for _, split := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			log := &formats{}
			node, err := ergo.StartNode("test@localhost", gen.NodeOptions{Log: gen.LogOptions{
				DefaultLogger: gen.DefaultLoggerOptions{Disable: true},
				Loggers:       []gen.Logger{{Name: "test", Logger: log, Filter: []gen.LogLevel{gen.LogLevelWarning}}},
			}})
			require.NoError(t, err)
			defer node.Stop()
			a := &plain{}
			a.SetSplitHandle(split)
			pid, err := node.SpawnRegister("name", func() gen.ProcessBehavior { return a }, gen.ProcessOptions{})
			require.NoError(t, err)
			alias, err := a.CreateAlias()
			require.NoError(t, err)

			targets := []any{pid, gen.Atom("name"), alias}
			for _, target := range targets {
				require.NoError(t, node.Send(target, "message"))
			}
			c := &caller{targets: targets}
			_, err = node.Spawn(func() gen.ProcessBehavior { return c }, gen.ProcessOptions{})
			require.NoError(t, err)
			for _, err := range c.errs {
				assert.ErrorIs(t, err, gen.ErrTimeout)
			}
			assert.Equal(t, 3, log.count("unhandled message of type %T"))
			assert.Equal(t, 3, log.count("unhandled request of type %T"))
		})
	}
}

// foreign is a behavior that embeds Actor but hands it another's process.
type foreign struct{ gen.Process }

func TestProcessInitRefusesOtherBehaviors(t *testing.T) {
	var a act.Actor
	err := a.ProcessInit(foreign{})
	assert.ErrorIs(t, err, gen.ErrIncorrect)
}

func (foreign) Behavior() gen.ProcessBehavior { return nil }
