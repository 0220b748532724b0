package prometheus

import (
	"fmt"
	"maps"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"

	"github.com/ergotls/ergotls/certmanager"
)

// Under a HostPolicy clients say which names are ordered. However many they ask for, the names
// that have a series keep theirs, no others get one, and a name that is gone makes room.
func TestStrangersMakeNoSeries(t *testing.T) {
	w := &watched{}
	all := []certmanager.OrderStatus{{Name: "ours.test", Serving: true}}
	w.choose(all)
	for i := range 1000 {
		all = append(all, certmanager.OrderStatus{Name: fmt.Sprintf("%03d.test", 999-i), Failures: i + 1})
		w.choose(all)
	}
	assert.Len(t, w.named, maxNames)
	assert.True(t, w.named["ours.test"])
	before := maps.Clone(w.named)
	w.choose(append(all, certmanager.OrderStatus{Name: "aaa.test", Failures: 1e6}))
	assert.Equal(t, before, w.named)
	w.choose(all[1:])
	assert.False(t, w.named["ours.test"])
	assert.Len(t, w.named, maxNames)
}

// Domains have their series also if the first scrape comes after clients have asked for many names.
func TestDomainsComeFirst(t *testing.T) {
	w := &watched{}
	var all []certmanager.OrderStatus
	for i := range 1000 {
		all = append(all, certmanager.OrderStatus{Name: fmt.Sprintf("%03d.test", i), OnDemand: true, Failures: i + 1})
	}
	w.choose(all)
	w.choose(append(all, certmanager.OrderStatus{Name: "ours.test", Serving: true}))
	assert.True(t, w.named["ours.test"])
	assert.Len(t, w.named, maxNames)
}

// A list that names no end does not hide the end of another of its issuer.
func TestListsWithoutAnEndComeLast(t *testing.T) {
	out := make(chan client.Metric, 10)
	emitter{out, "main"}.crls([]certmanager.CRLInfo{{Issuer: "CN=ca"}, {Issuer: "CN=ca", NextUpdate: time.Unix(1000, 0)}})
	close(out)
	var ends int
	for metric := range out {
		if metric.Desc() == crlEnd {
			ends++
		}
	}
	assert.Equal(t, 1, ends)
}
