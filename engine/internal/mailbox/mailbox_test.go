package mailbox

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ergo.services/ergo/gen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	normal = gen.MessagePriorityNormal
	high   = gen.MessagePriorityHigh
	top    = gen.MessagePriorityMax
)

func push(t *testing.T, m *Mailbox, payload any, priority gen.MessagePriority) {
	t.Helper()
	_, err := m.Push(&Message{Payload: payload}, priority, false)
	require.NoError(t, err)
}

func next(m *Mailbox) any {
	message := m.Next()
	if message == nil {
		return nil
	}
	return message.Payload
}

func TestOrder(t *testing.T) {
	var m Mailbox

	assert.Nil(t, next(&m))
	for i := range 100 {
		push(t, &m, i, normal)
	}
	for i := range 50 {
		assert.Equal(t, i, next(&m))
	}
	push(t, &m, "high", high)
	push(t, &m, 100, normal)
	push(t, &m, "max", top)
	push(t, &m, "max 2", top)
	assert.Equal(t, "max", next(&m))
	push(t, &m, "high 2", high)
	assert.Equal(t, "max 2", next(&m))
	assert.Equal(t, "high", next(&m))
	assert.Equal(t, "high 2", next(&m))
	for i := 50; i <= 100; i++ {
		assert.Equal(t, i, next(&m))
	}
	assert.Nil(t, next(&m))
	assert.EqualValues(t, 105, m.Count())
}

func TestLimitCountsWhatWaits(t *testing.T) {
	var m Mailbox
	m.Limit = 2
	push(t, &m, 1, normal)
	push(t, &m, 2, normal)
	_, err := m.Push(&Message{}, normal, false)
	assert.ErrorIs(t, err, gen.ErrProcessMailboxFull)
	push(t, &m, "urgent", top)
	_, err = m.Push(&Message{Payload: "forced"}, normal, true)
	require.NoError(t, err)
	assert.Equal(t, "urgent", next(&m))
	assert.Equal(t, 1, next(&m))
	_, err = m.Push(&Message{}, normal, false)
	assert.ErrorIs(t, err, gen.ErrProcessMailboxFull, "also what the consumer has fetched but not handled counts")
	assert.Equal(t, 2, next(&m))
	push(t, &m, 3, normal)
	assert.Equal(t, "forced", next(&m))
	assert.Equal(t, 3, next(&m))
	assert.Nil(t, next(&m))
}

func TestParkAndWake(t *testing.T) {
	var m Mailbox

	wake, _ := m.Push(&Message{Payload: 1}, normal, false)
	assert.False(t, wake, "the consumer is running from the start")
	assert.False(t, m.Park(), "something came in")
	assert.Equal(t, 1, next(&m))
	push(t, &m, 2, normal)
	push(t, &m, 3, high)
	assert.Equal(t, 3, next(&m))
	assert.False(t, m.Park(), "something was fetched")
	assert.Equal(t, 2, next(&m))
	assert.True(t, m.Park())
	wake, _ = m.Push(&Message{Payload: 4}, normal, false)
	assert.True(t, wake)
	wake, _ = m.Push(&Message{Payload: 5}, normal, false)
	assert.False(t, wake, "one consumer")
	wake, _ = m.Push(&Message{Payload: 6}, normal, true)
	assert.False(t, wake)
}

func TestClose(t *testing.T) {
	errFirst, errSecond := errors.New("first"), errors.New("second")
	t.Run("running", func(t *testing.T) {
		var m Mailbox

		push(t, &m, 1, normal)
		push(t, &m, 2, normal)
		assert.Equal(t, 1, next(&m))
		push(t, &m, 3, normal)
		assert.NoError(t, m.Reason())
		assert.False(t, m.Close(errFirst))
		assert.False(t, m.Close(errSecond))
		assert.Equal(t, errFirst, m.Reason())
		assert.Nil(t, next(&m), "also what was fetched is dropped")
		assert.False(t, m.Park(), "the consumer has the end to handle")
		_, err := m.Push(&Message{}, top, false)
		assert.ErrorIs(t, err, gen.ErrProcessTerminated)
		_, err = m.Push(&Message{}, top, true)
		assert.ErrorIs(t, err, gen.ErrProcessTerminated)
	})
	t.Run("parked", func(t *testing.T) {
		var m Mailbox

		require.True(t, m.Park())
		assert.True(t, m.Close(errFirst), "whoever closes starts the consumer")
		assert.False(t, m.Close(errSecond))
		assert.Equal(t, errFirst, m.Reason())
	})
}

// Many producers, and consumers that come and go: nothing is lost, in order, and
// there is one consumer at a time.
func TestConcurrent(t *testing.T) {
	var m Mailbox

	require.True(t, m.Park())
	const producers, each = 8, 2000
	var all, consumers sync.WaitGroup
	var alone sync.Mutex
	all.Add(producers * each)
	seen := make([]int, producers)
	consume := func() {
		for {
			for message := m.Next(); message != nil; message = m.Next() {
				assert.True(t, alone.TryLock())
				p := message.Payload.([2]int)
				assert.Equal(t, seen[p[0]], p[1])
				seen[p[0]]++
				alone.Unlock()
				all.Done()
			}
			if m.Park() {
				return
			}
		}
	}
	for producer := range producers {
		consumers.Go(func() {
			for i := range each {
				priority := gen.MessagePriority(producer % 3)
				wake, err := m.Push(&Message{Payload: [2]int{producer, i}}, priority, false)
				assert.NoError(t, err)
				if wake {
					consumers.Go(consume)
				}
			}
		})
	}
	all.Wait()
	consumers.Wait()
	assert.EqualValues(t, producers*each, m.Count())
}

// An empty mailbox keeps nothing alive, however large the burst was, nor does a closed one.
func TestEmptyMailboxHoldsNoMemory(t *testing.T) {
	var m Mailbox
	for i := range 1000 {
		push(t, &m, i, gen.MessagePriority(i%3))
	}
	for range 1000 {
		require.NotNil(t, next(&m))
	}
	for i := range m.lists {
		assert.Nil(t, m.lists[i].first)
		assert.Nil(t, m.lists[i].last)
	}
	push(t, &m, 1, normal)
	m.Close(errors.New("over"))
	assert.Zero(t, m.lists)
}
