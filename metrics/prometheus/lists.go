package prometheus

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ergotls/ergotls/certmanager/crlfetch"
)

var (
	listThisUpdate = describe("fetched_crl_this_update_timestamp_seconds", "The thisUpdate of the revocation list in use from an address.", "lists", "url")
	listNextUpdate = describe("fetched_crl_next_update_timestamp_seconds", "When the next revocation list from an address is due.", "lists", "url")
	listEntries    = describe("fetched_crl_entries", "Certificates on the revocation list from an address.", "lists", "url")
	listAsked      = describe("fetched_crl_asked_timestamp_seconds", "When the last request for the revocation list of an address ended.", "lists", "url")
	listFailed     = describe("fetched_crl_failed", "1 if the last request returned no usable list, or the list could not be written to Dir.", "lists", "url")
)

// AddLists adds the revocation lists that a source fetches under a name, the value of the label
// "lists". The label "url" has their addresses, which are the operator's, or those in its own
// certificates and CAs. AddLists replaces an earlier source of that name.
func (c *Collector) AddLists(name string, source *crlfetch.Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lists[name] = source
}

// RemoveLists removes a source of lists, if there is one of that name.
func (c *Collector) RemoveLists(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.lists, name)
}

func collectLists(out chan<- prometheus.Metric, name string, all []crlfetch.ListStatus) {
	e := emitter{out, name}
	first := firstOfName(all, func(l crlfetch.ListStatus) string { return l.URL },
		func(a, b crlfetch.ListStatus) int { return -cmp.Compare(number(a.Err != nil), number(b.Err != nil)) })
	for _, named := range first {
		url, l := named.name, named.value
		if l.Issuer != "" {
			e.gauge(listThisUpdate, seconds(l.ThisUpdate), url)
			e.gauge(listEntries, float64(l.Entries), url)
		}
		if !l.NextUpdate.IsZero() {
			e.gauge(listNextUpdate, seconds(l.NextUpdate), url)
		}
		if !l.Asked.IsZero() {
			e.gauge(listAsked, seconds(l.Asked), url)
			e.gauge(listFailed, number(l.Err != nil), url)
		}
	}
}
