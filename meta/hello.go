package meta

import "encoding/binary"

// helloRecords hands a ClientHello to crypto/tls in several records, as RFC 8446 section 5.1 allows any handshake message to be cut, so that an idle
// connection is smaller. crypto/tls reads records into a buffer that has room for the largest and one read more, and never gives it back;
// a ClientHello with a post-quantum key share makes it 2 KiB, where 576 bytes are enough for a connection with small messages. It also
// puts the message together in a second buffer, which grows as append does: pieces that double make that one fit. On the wire nothing changes.
type helloRecords struct {
	begun   bool
	version [2]byte // of the record
	payload []byte  // what has come of it; its capacity is the size, none where the record is left as it is
	passed  int     // what of it was handed on
}

// recordHeader is the size in bytes of what precedes each TLS record (RFC 8446 section 5.1).
const recordHeader = 5

// wholeRecord is the payload in bytes up to which a record is left as it is.
const wholeRecord = 512

// read reads as crypto/tls does, with a buffer of 512 bytes or more.
func (h *helloRecords) read(s *socket, b []byte) (n int, err error) {
	if !h.begun {
		h.begun = true
		if n, err = s.readSome(b); err != nil || !h.begin(b[:n]) {
			return n, err
		}
	}
	size := cap(h.payload)
	if h.passed == size {
		h.payload = nil
		h.passed = 0
		return s.readSome(b)
	}
	piece := min(max(h.passed, (size+3)/4), size-h.passed, len(b)-recordHeader)
	for len(h.payload) < h.passed+piece {
		n, err := s.readSome(h.payload[len(h.payload):size])
		if h.payload = h.payload[:len(h.payload)+n]; err != nil {
			return 0, err
		}
	}
	copy(b[recordHeader:], h.payload[h.passed:h.passed+piece])
	h.passed += piece
	b[0], b[1], b[2] = recordHandshake, h.version[0], h.version[1]
	binary.BigEndian.PutUint16(b[3:], uint16(piece))
	return recordHeader + piece, nil
}

// recordHandshake is the type of records with handshake messages (RFC 8446 section 5.1).
const recordHandshake = 22

// begin says whether what was read first is a record to be cut. Anything that crypto/tls might complain about is left to it.
func (h *helloRecords) begin(first []byte) bool {
	if len(first) <= recordHeader || first[0] != recordHandshake {
		return false
	}
	const most = 1 << 14
	size := int(binary.BigEndian.Uint16(first[3:]))
	if size <= wholeRecord || size > most || len(first) > recordHeader+size {
		return false
	}
	h.version = [2]byte(first[1:])
	h.payload = append(make([]byte, 0, size), first[recordHeader:]...)
	return true
}
