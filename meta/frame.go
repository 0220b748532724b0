package meta

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
)

// FixedLength returns a function for [TCPServerOptions.Split] that cuts frames of n bytes each. If
// n is over 64 KiB, set MaxFrame to n. The error wraps [ErrOption].
func FixedLength(n int) (bufio.SplitFunc, error) {
	if n < 1 {
		return nil, fmt.Errorf("%w: FixedLength: is %d; use a length above 0", ErrOption, n)
	}
	frame := LengthPrefixed{HeaderSize: n, KeepHeader: true} // the whole frame is the header
	return sized(n, frame.split), nil
}

// sizeProbe is passed to Split at Create. The functions of this file recognize its address and
// return a frameSize; others see the first byte of a frame. So a frame size above MaxFrame is an
// error at Create rather than at the first frame of every connection.
var sizeProbe = []byte{0}

// frameSize is the size in bytes, with its header, of the largest frame that a function of this
// file allows.
type frameSize int

func (n frameSize) Error() string { return fmt.Sprintf("frames of %d bytes", int(n)) }

// sized returns split with an answer to the sizeProbe.
func sized(n int, split bufio.SplitFunc) bufio.SplitFunc {
	return func(data []byte, atEOF bool) (int, []byte, error) {
		if len(data) == 1 && &data[0] == &sizeProbe[0] {
			return 0, nil, frameSize(n)
		}
		return split(data, atEOF)
	}
}

// largestFrame returns the frameSize of a function of this file, 0 for any other.
func largestFrame(split bufio.SplitFunc) int {
	_, _, err := split(sizeProbe, false)
	size, _ := err.(frameSize)
	return int(size)
}

// LengthPrefixed describes frames that carry their length in a header. The zero value is not
// useful: set Width. Its method Split returns the function for the option Split.
type LengthPrefixed struct {
	// HeaderSize is the number of bytes before the payload. 0 means Offset + Width.
	HeaderSize int
	// Offset is the position of the length field in the header in bytes, Width its size: 1, 2, 4 or 8.
	Offset int
	Width  int
	// LittleEndian is the field's byte order; false is network byte order.
	LittleEndian bool
	// IncludesHeader means that the length counts the header too.
	IncludesHeader bool
	// MaxPayload is the largest accepted payload in bytes. 0 leaves the limit to MaxFrame, which
	// counts the header too.
	MaxPayload int
	// KeepHeader delivers the header together with the payload.
	KeepHeader bool
}

// Split returns the function for [TCPServerOptions.Split]. The error wraps [ErrOption].
//
// A length over MaxPayload, or one that includes the header and is smaller than it, ends the
// connection.
func (l LengthPrefixed) Split() (bufio.SplitFunc, error) {
	var c check
	c.refuse(l.Width != 1 && l.Width != 2 && l.Width != 4 && l.Width != 8, "LengthPrefixed.Width: is %d; use 1, 2, 4 or 8", l.Width)
	c.numbers("LengthPrefixed.", l)
	l.HeaderSize = cmp.Or(l.HeaderSize, l.Offset+l.Width)
	c.refuse(l.HeaderSize < l.Offset+l.Width, "LengthPrefixed.HeaderSize: is %d, but the length field ends at %d", l.HeaderSize, l.Offset+l.Width)
	if err := c.err(); err != nil {
		return nil, err
	}
	most := math.MaxInt - l.HeaderSize // so that the sum with the header fits an int
	l.MaxPayload = min(l.MaxPayload, most)
	largest := l.HeaderSize + l.MaxPayload
	l.MaxPayload = cmp.Or(l.MaxPayload, most)
	return sized(largest, l.split), nil
}

func (l LengthPrefixed) split(data []byte, atEOF bool) (int, []byte, error) {
	size := l.HeaderSize
	if len(data) >= size {
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
		size += int(length)
	}
	switch {
	case len(data) >= size && l.KeepHeader:
		return size, data[:size], nil
	case len(data) >= size:
		return size, data[l.HeaderSize:size], nil
	case atEOF && len(data) > 0:
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

// length reads the length field, 0 if there is none.
func (l LengthPrefixed) length(field []byte) (length uint64) {
	for i := range l.Width {
		if l.LittleEndian {
			i = l.Width - 1 - i
		}
		length = length<<8 | uint64(field[i])
	}
	return length
}
