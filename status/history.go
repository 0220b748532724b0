package status

import (
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
)

// minute is what happened on a server in one minute.
type minute struct {
	Start       time.Time
	Connections int // the most that were seen at a time
	Handshakes  uint64
	Refused     uint64
}

// history is the last hour of a server. Minutes that nobody watched are not in it.
type history struct {
	minutes []minute // the oldest first

	watching            bool // what follows is set
	handshakes, refused uint64
}

const hour = 60 // minutes of a history

// add takes a look at the counters: what they have grown by belongs to the minute of now.
func (h *history) add(now time.Time, s meta.ServerStats) {
	var handshakes, refused uint64
	for _, kind := range s.Handshakes {
		handshakes += kind.Count
	}
	for _, n := range s.Refused {
		refused += n
	}
	start := now.Truncate(time.Minute)
	if n := len(h.minutes); n == 0 || h.minutes[n-1].Start.Before(start) {
		h.minutes = append(h.minutes, minute{Start: start})
	}
	for len(h.minutes) > 0 && h.minutes[0].Start.Before(start.Add(-(hour-1)*time.Minute)) {
		h.minutes = h.minutes[1:]
	}
	m := &h.minutes[len(h.minutes)-1]
	m.Connections = max(m.Connections, s.Connections)
	if h.watching {
		m.Handshakes += handshakes - h.handshakes
		m.Refused += refused - h.refused
	}
	h.watching, h.handshakes, h.refused = true, handshakes, refused
}

// eventView is an event on the page.
type eventView struct {
	Time        time.Time
	Manager     string
	Kind        certmanager.Kind
	Level       string `json:"-"` // "", "good", "warn" or "bad"
	Generation  uint64
	Certificate string `json:",omitempty"`
	Serial      string `json:",omitempty"`
	Peer        string `json:",omitempty"`
	Remote      string `json:",omitempty"`
	ReportOnly  bool   `json:",omitempty"`
	Error       string `json:",omitempty"`
}

// journal keeps the last events, those caused by peers separately: however many peers are refused,
// the last rotation stays on the page.
type journal struct {
	own, peers []eventView // the oldest first
	more       int         // of peers that are no longer in the list
}

const journalSize = 50 // of each

func (j *journal) add(manager string, e certmanager.Event) {
	v := eventView{Time: e.Time, Manager: manager, Kind: e.Kind, Level: level(e), Generation: e.Generation, ReportOnly: e.ReportOnly}
	if e.Certificate != nil {
		v.Certificate, v.Serial = printable(e.Certificate.Subject), e.Certificate.Serial
	}
	if e.Name != "" {
		v.Certificate = printable(e.Name)
	}
	if e.Peer != nil {
		v.Peer, v.Serial, v.Remote = printable(e.Peer.Subject), printable(e.Peer.Serial), printable(e.Peer.Remote)
	}
	if e.Err != nil {
		v.Error = printable(e.Err.Error())
	}
	list := &j.own
	if e.Kind == certmanager.PeerRefused || e.Kind == certmanager.PeerEvicted {
		list = &j.peers
	}
	*list = append(*list, v)
	if len(*list) > journalSize {
		if *list = (*list)[1:]; list == &j.peers {
			j.more++
		}
	}
}

func level(e certmanager.Event) string {
	switch e.Kind {
	case certmanager.Loaded, certmanager.Issued:
		return "good"
	case certmanager.Rejected, certmanager.Expired:
		return "bad"
	case certmanager.PeerRefused, certmanager.PeerEvicted:
		return ""
	}
	return "warn"
}
