package meta

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// FixedLength gives the function for TCPServerOptions.Split that cuts frames of n bytes each. Set MaxFrame to n where that is
// over 64 KiB: it is the bound that counts. The error wraps [ErrOption].
func FixedLength(n int) (bufio.SplitFunc, error) {
	if n < 1 {
		return nil, fmt.Errorf("%w: FixedLength: is %d; use a length above 0", ErrOption, n)
	}
	return func(data []byte, atEOF bool) (int, []byte, error) {
		switch {
		case len(data) >= n:
			return n, data[:n], nil
		case atEOF && len(data) > 0:
			return 0, nil, io.ErrUnexpectedEOF
		}
		return 0, nil, nil
	}, nil
}

// LengthPrefixed describes frames that carry their length in a header. The zero value is not
// useful: set Width. Its method Split gives the function for the option of that name.
type LengthPrefixed struct {
	// HeaderSize is the number of bytes before the payload. 0 means Offset + Width.
	HeaderSize int
	// Offset is where in the header the length field begins, Width its size in bytes: 1, 2, 4 or 8.
	Offset int
	Width  int
	// LittleEndian is the field's byte order; false is network byte order.
	LittleEndian bool
	// IncludesHeader says that the length counts the header too.
	IncludesHeader bool
	// MaxPayload is the largest payload in bytes that is taken. 0 leaves it to MaxFrame, which bounds the frame with its header in any case.
	MaxPayload int
	// KeepHeader delivers the header with the payload.
	KeepHeader bool
}

// Split gives the function for TCPServerOptions.Split. The error wraps [ErrOption].
//
// A length over MaxPayload, or one that includes the header and is smaller than it, ends the connection.
func (l LengthPrefixed) Split() (bufio.SplitFunc, error) {
	var c check
	c.refuse(l.Width != 1 && l.Width != 2 && l.Width != 4 && l.Width != 8, "LengthPrefixed.Width: is %d; use 1, 2, 4 or 8", l.Width)
	c.notNegative("LengthPrefixed.Offset", l.Offset)
	c.notNegative("LengthPrefixed.MaxPayload", l.MaxPayload)
	setDefault(&l.HeaderSize, l.Offset+l.Width)
	c.refuse(l.HeaderSize < l.Offset+l.Width, "LengthPrefixed.HeaderSize: is %d, but the length field ends at %d", l.HeaderSize, l.Offset+l.Width)
	setDefault(&l.MaxPayload, math.MaxInt-l.HeaderSize)
	return l.split, c.err()
}

func (l LengthPrefixed) split(data []byte, atEOF bool) (int, []byte, error) {
	if len(data) < l.HeaderSize {
		if atEOF && len(data) > 0 {
			return 0, nil, io.ErrUnexpectedEOF
		}
		return 0, nil, nil
	}
	length := l.length(data[l.Offset:])
	if l.IncludesHeader {
		if length < uint64(l.HeaderSize) {
			return 0, nil, fmt.Errorf("length %d is smaller than the header that it includes (%d bytes)", length, l.HeaderSize)
		}
		length -= uint64(l.HeaderSize)
	}
	if length > uint64(l.MaxPayload) {
		return 0, nil, fmt.Errorf("%w: %d bytes of payload are announced, %d allowed", ErrFrameTooLarge, length, l.MaxPayload)
	}
	size := l.HeaderSize + int(length)
	if len(data) < size {
		if atEOF {
			return 0, nil, io.ErrUnexpectedEOF
		}
		return 0, nil, nil
	}
	if l.KeepHeader {
		return size, data[:size], nil
	}
	return size, data[l.HeaderSize:size], nil
}

func (l LengthPrefixed) length(field []byte) uint64 {
	order := binary.ByteOrder(binary.BigEndian)
	if l.LittleEndian {
		order = binary.LittleEndian
	}
	switch l.Width {
	case 1:
		return uint64(field[0])
	case 2:
		return uint64(order.Uint16(field))
	case 4:
		return uint64(order.Uint32(field))
	default:
		return order.Uint64(field)
	}
}
