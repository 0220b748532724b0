package prometheus

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ergotls/ergotls/certmanager"
)

// maxNames is how many certificates of a kind, revocation lists and ACME names of one manager have
// a label of their own: those that end first. The horizon is over all of them.
const maxNames = 100

var (
	managerGeneration = describe("manager_generation", "The number of the set in service, counted from 1.", "manager")
	managerPublished  = describe("manager_published_timestamp_seconds", "When the current set was put in service.", "manager")
	managerReloads    = describe("manager_reloads_total", "Sets put in service (result loaded) and rejected candidates (rejected).", "manager", "result")
	managerRejection  = describe("manager_last_rejection_timestamp_seconds", "When a candidate was last rejected; 0 if never.", "manager")
	managerDrift      = describe("manager_drift", "1 while the current contents of the source are rejected and an earlier set is in service.", "manager")
	managerPolling    = describe("manager_polling", "1 while file events are missing or lost, so that changes are found only by polling.", "manager")
	managerClock      = describe("manager_clock_steps_total", "How often the clock was set, or the machine slept.", "manager")
	managerHorizon    = describe("manager_expiry_horizon_timestamp_seconds",
		"The earliest expiry of the certificates, their issuers, CAs and revocation lists in service.", "manager")
	managerConnections = describe("manager_connections", "Open connections whose peers are verified again when trust changes.", "manager")
	managerRefused     = describe("manager_peers_refused_total", "Refused peers by reason, including those of net/http and other servers.", "manager", "reason")
	managerReported    = describe("manager_peers_reported_total", "Peers that were accepted only because of ReportOnly.", "manager")
	managerEvicted     = describe("manager_connections_evicted_total", "Open connections that the manager closed.", "manager")
	managerTickets     = describe("manager_tickets_declined_total", "Sessions that were not resumed because trust changed or they were too old.", "manager")
	managerDropped     = describe("manager_events_dropped_total", "Events that were dropped because subscribers were too slow.", "manager")

	certificateBegin = describe("certificate_not_before_timestamp_seconds",
		"The start of validity of a certificate in service. Its kind is server, intermediate, client_ca or root_ca.", "manager", "kind", "name")
	certificateEnd = describe("certificate_not_after_timestamp_seconds",
		"The expiry of a certificate in service; the earliest of several with one name.", "manager", "kind", "name")
	crlEnd     = describe("crl_next_update_timestamp_seconds", "When the next revocation list of an issuer is due.", "manager", "issuer")
	crlEntries = describe("crl_entries", "Certificates on the revocation list of an issuer.", "manager", "issuer")

	acmeOrders   = describe("acme_orders_total", "Orders of certificates by result, issued or failed, since AddManager.", "manager", "result")
	acmeNames    = describe("acme_names", "Names of ACME sources, by whether a certificate is in service.", "manager", "serving")
	acmeServing  = describe("acme_serving", "1 while a certificate is in service for one of the Domains of an ACME source, else 0.", "manager", "name")
	acmeFailures = describe("acme_consecutive_failures", "Consecutive failed attempts to obtain a certificate for a name.", "manager", "name")
	acmeUnsaved  = describe("acme_unsaved", "Names whose certificate is served from memory because it could not be stored.", "manager")
	acmeEnd      = describe("acme_certificate_not_after_timestamp_seconds", "The expiry of the certificate that an ACME source serves for a name.", "manager", "name")
	acmeInfo     = describe("acme_name_info", "The CA and the kind of challenge of a name: always 1.", "manager", "name", "ca", "challenge")
	acmeRecord   = describe("acme_record_end_timestamp_seconds", "The expiry of the DNS-PERSIST-01 record of a name.", "manager", "name")
	acmeNext     = describe("acme_next_attempt_timestamp_seconds", "When the next order of a name's certificate is due.", "manager", "name")
)

// watched is a manager with the orders that were counted from its events.
type watched struct {
	*certmanager.Manager
	cancel         func()
	issued, failed atomic.Uint64

	mu    sync.Mutex      // guards named
	named map[string]bool // ACME names with a label of their own at the last scrape
}

func watch(m *certmanager.Manager) *watched {
	w := &watched{Manager: m}
	w.cancel = m.Subscribe(func(e certmanager.Event) {
		switch e.Kind {
		case certmanager.Issued:
			w.issued.Add(1)
		case certmanager.OrderFailed:
			w.failed.Add(1)
		}
	})
	return w
}

func (w *watched) collect(out chan<- prometheus.Metric, name string) {
	e, s := emitter{out, name}, w.Status()
	e.gauge(managerGeneration, float64(s.Generation))
	e.gauge(managerPublished, seconds(s.Published))
	e.counter(managerReloads, float64(s.Loads), "loaded")
	e.counter(managerReloads, float64(s.Rejections), "rejected")
	e.gauge(managerRejection, seconds(s.LastErrorTime))
	e.gauge(managerDrift, number(s.Drift))
	e.gauge(managerPolling, number(s.Polling != ""))
	e.counter(managerClock, float64(s.ClockSteps))
	if end := horizon(&s); !end.IsZero() {
		e.gauge(managerHorizon, seconds(end))
	}
	e.gauge(managerConnections, float64(s.Connections))
	other := s.Refused
	for _, reason := range certmanager.RefusedReasons { // those that have not happened too, so that the first is an increase
		e.counter(managerRefused, float64(s.RefusedBy[reason]), reason)
		other -= min(other, s.RefusedBy[reason])
	}
	e.counter(managerRefused, float64(other), "other")
	e.counter(managerReported, float64(s.Reported))
	e.counter(managerEvicted, float64(s.Evicted))
	e.counter(managerTickets, float64(s.DeclinedTickets))
	e.counter(managerDropped, float64(s.DroppedEvents))
	e.certificates("server", s.Certificates)
	e.certificates("intermediate", s.Intermediates)
	e.certificates("client_ca", s.ClientCAs)
	e.certificates("root_ca", s.RootCAs)
	e.crls(s.CRLs)
	if len(s.ACME) > 0 {
		e.counter(acmeOrders, float64(w.issued.Load()), "issued")
		e.counter(acmeOrders, float64(w.failed.Load()), "failed")
		e.acme(s.ACME, w.choose(s.ACME))
	}
}

func (e emitter) certificates(kind string, all []certmanager.CertificateInfo) {
	named := firstOfName(all, func(c certmanager.CertificateInfo) string {
		if len(c.Names) > 0 {
			return c.Names[0]
		}
		return c.Subject
	}, func(a, b certmanager.CertificateInfo) int { return a.NotAfter.Compare(b.NotAfter) })
	for _, c := range named {
		e.gauge(certificateBegin, seconds(c.value.NotBefore), kind, c.name)
		e.gauge(certificateEnd, seconds(c.value.NotAfter), kind, c.name)
	}
}

func (e emitter) crls(all []certmanager.CRLInfo) {
	named := firstOfName(all, func(l certmanager.CRLInfo) string { return l.Issuer },
		func(a, b certmanager.CRLInfo) int { // those without an end come last
			return cmp.Or(cmp.Compare(number(a.NextUpdate.IsZero()), number(b.NextUpdate.IsZero())), a.NextUpdate.Compare(b.NextUpdate))
		})
	for _, l := range named {
		if !l.value.NextUpdate.IsZero() {
			e.gauge(crlEnd, seconds(l.value.NextUpdate), l.name)
		}
		e.gauge(crlEntries, float64(l.value.Revoked), l.name)
	}
}

// choose returns the ACME names that have a label of their own: those of Domains first. A name
// keeps its label: under a HostPolicy clients choose the names, and could otherwise create more and
// more series.
func (w *watched) choose(all []certmanager.OrderStatus) []named[certmanager.OrderStatus] {
	w.mu.Lock()
	defer w.mu.Unlock()
	chosen := firstOfName(all, func(a certmanager.OrderStatus) string { return a.Name },
		func(a, b certmanager.OrderStatus) int {
			return cmp.Or(cmp.Compare(number(a.OnDemand), number(b.OnDemand)), -cmp.Compare(number(w.named[label(a.Name)]), number(w.named[label(b.Name)])),
				-cmp.Compare(a.Failures, b.Failures), a.NotAfter.Compare(b.NotAfter))
		})
	w.named = map[string]bool{}
	for _, a := range chosen {
		w.named[a.name] = true
	}
	return chosen
}

func (e emitter) acme(all []certmanager.OrderStatus, chosen []named[certmanager.OrderStatus]) {
	serving, unsaved := 0, 0
	for _, a := range all {
		if a.Serving {
			serving++
		}
		if a.Unsaved {
			unsaved++
		}
	}
	e.gauge(acmeUnsaved, float64(unsaved))
	e.gauge(acmeNames, float64(serving), "true")
	e.gauge(acmeNames, float64(len(all)-serving), "false")
	for _, a := range chosen {
		e.gauge(acmeFailures, float64(a.value.Failures), a.name)
		if !a.value.OnDemand { // others may be without one, as clients ask for them
			e.gauge(acmeServing, number(a.value.Serving), a.name)
		}
		if !a.value.Next.IsZero() {
			e.gauge(acmeNext, seconds(a.value.Next), a.name)
		}
		if a.value.Serving {
			e.gauge(acmeEnd, seconds(a.value.NotAfter), a.name)
		}
		if !a.value.RecordUntil.IsZero() {
			e.gauge(acmeRecord, seconds(a.value.RecordUntil), a.name)
		}
		e.gauge(acmeInfo, 1, a.name, label(a.value.CA), a.value.Challenge)
	}
}

type named[T any] struct {
	name  string
	value T
}

// firstOfName returns the first value of each name in an order, and no more than maxNames: two
// series with the same labels would fail the whole scrape.
func firstOfName[T any](all []T, name func(T) string, order func(a, b T) int) (out []named[T]) {
	seen := map[string]bool{}
	for _, v := range slices.SortedStableFunc(slices.Values(all), order) {
		n := label(name(v))
		if !seen[n] && len(out) < maxNames {
			seen[n] = true
			out = append(out, named[T]{n, v})
		}
	}
	return out
}

// horizon is the first end of all that is in service; zero if nothing ends.
func horizon(s *certmanager.Status) (first time.Time) {
	ends := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, c := range slices.Concat(s.Certificates, s.Intermediates, s.ClientCAs, s.RootCAs) {
		ends(c.NotAfter)
	}
	for _, l := range s.CRLs {
		ends(l.NextUpdate)
	}
	return first
}

// seconds is a time as Prometheus has it; 0 for the zero time. Nanoseconds since 1970 would end
// before some certificates do.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
