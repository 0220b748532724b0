package meta

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// scratchSize is the size in bytes of the buffers that connections read into: a TLS record holds no
// more.
const scratchSize = 16 << 10

// scratches are these buffers. A connection holds one only while there is something in it.
var scratches = sync.Pool{New: func() any { return new([scratchSize]byte) }}

// inbox holds what was read and not yet delivered. Only the read loop uses it.
type inbox struct {
	opt        *TCPConnectionOptions
	buf        []byte // nil: none is held
	scratch    *[scratchSize]byte
	start, end int   // what is in buf
	err        error // of the last read; it comes after what is in buf
	atEOF      bool  // Split was told that no more comes
	final      bool  // Split has given its last token
	pooled     int   // capacity of the buffers in the user's pool; set before Start
}

func (b *inbox) init(opt *TCPConnectionOptions) {
	b.opt = opt
	if opt.BufferPool != nil {
		buf := opt.poolBuffer()
		b.pooled = cap(buf)
		b.recycle(buf)
	}
}

// empty says that nothing waits to be delivered.
func (b *inbox) empty() bool { return b.start == b.end }

func (b *inbox) full() bool { return !b.empty() && b.end == len(b.buf) }

// space gives the room to read into. It is not called when full.
func (b *inbox) space() []byte {
	if b.empty() {
		b.start, b.end = 0, 0
	}
	switch {
	case b.buf != nil:
	case b.opt.BufferPool != nil:
		buf := b.opt.poolBuffer()
		b.buf = buf[:min(cap(buf), b.opt.BufferSize)]
	default:
		b.scratch = scratches.Get().(*[scratchSize]byte)
		b.buf = b.scratch[:]
		if b.opt.Split == nil {
			b.buf = b.buf[:min(scratchSize, b.opt.BufferSize)]
		}
	}
	return b.buf[b.end:]
}

// next gives the next message, nil if there is none yet, or the reason for which there will be
// none.
func (b *inbox) next() (data []byte, reason, cause error) {
	switch {
	case b.opt.Split != nil:
		return b.nextFrame()
	case b.empty():
		return nil, nil, nil
	case b.opt.BufferPool != nil, b.end > scratchSize/2:
		data = b.buf[:b.end]
		b.buf, b.scratch = nil, nil // it is the receiver's: to copy so much costs more than another buffer
	default:
		data = bytes.Clone(b.buf[:b.end])
	}
	b.end = 0
	return data, nil, nil
}

// nextFrame calls Split as bufio.Scanner does, but never trusts it to make progress. That the bytes
// end is told to it only if the peer ended them in order: what a cut connection leaves is not a
// frame.
func (b *inbox) nextFrame() (data []byte, reason, cause error) {
	if b.final {
		return nil, ErrTerminated, bufio.ErrFinalToken
	}
	for !b.empty() || b.err == io.EOF && !b.atEOF {
		if b.empty() {
			b.atEOF = true // without that, Split may not be called with nothing
		}
		rest := b.buf[b.start:b.end]
		rest = rest[:min(len(rest), b.opt.MaxFrame)] // never more, so that it does not matter how much has arrived
		atEOF := b.atEOF && b.start+len(rest) == b.end
		advance, token, err := b.opt.Split(rest, atEOF)
		switch {
		case err == bufio.ErrFinalToken:
			b.final, b.start, b.end = true, 0, 0
			if token != nil {
				return bytes.Clone(token), nil, nil
			}
			return nil, ErrTerminated, err
		case errors.Is(err, ErrFrameTooLarge):
			return nil, ErrFrameTooLarge, err
		case err != nil:
			return nil, ErrFraming, err
		case advance < 0:
			return nil, ErrFraming, bufio.ErrNegativeAdvance
		case advance > len(rest):
			return nil, ErrFraming, bufio.ErrAdvanceTooFar
		case advance == 0 && token == nil && len(rest) == b.opt.MaxFrame:
			return nil, ErrFrameTooLarge, fmt.Errorf("over %d bytes (MaxFrame)", b.opt.MaxFrame)
		case advance == 0 && token != nil && !atEOF:
			return nil, ErrFraming, io.ErrNoProgress
		case advance == 0 && token == nil && b.err == nil:
			b.makeRoom()
			return nil, nil, nil
		case advance == 0 && token == nil && b.err == io.EOF && !b.atEOF:
			b.atEOF = true
			continue
		case advance == 0 && token == nil && b.err == io.EOF && !b.empty():
			return nil, ErrFraming, io.ErrUnexpectedEOF
		case advance == 0 && token == nil:
			b.start, b.end = 0, 0 // the beginning of a frame that was cut off; err says how
			return nil, nil, nil
		}
		b.start += advance
		if advance == 0 {
			b.start = b.end // a last token at the end without progress
		}
		if token != nil {
			return bytes.Clone(token), nil, nil
		}
	}
	b.start, b.end = 0, 0
	return nil, nil, nil
}

// makeRoom moves what is there to the front, and into a larger buffer where it fills its own.
func (b *inbox) makeRoom() {
	if b.start > 0 {
		b.end = copy(b.buf, b.buf[b.start:b.end])
		b.start = 0
	}
	if b.end == len(b.buf) {
		b.replace(make([]byte, min(2*len(b.buf), max(b.opt.MaxFrame, len(b.buf)+1))))
	}
}

// replace puts what is there into another buffer.
func (b *inbox) replace(buf []byte) {
	n := copy(buf, b.buf[b.start:b.end])
	b.discard()
	b.buf, b.end = buf, n
}

// park is called before a wait: an empty buffer is given back, and the beginning of a frame is kept
// in no more than it needs.
func (b *inbox) park() {
	switch held := b.end - b.start; {
	case held == 0:
		b.discard()
	case 4*held <= len(b.buf) && b.opt.BufferPool == nil:
		b.replace(make([]byte, 2*held))
	}
}

// discard gives the buffer back.
func (b *inbox) discard() {
	if b.scratch != nil {
		scratches.Put(b.scratch)
	} else if b.opt.BufferPool != nil {
		b.recycle(b.buf)
	}
	b.buf, b.scratch, b.start, b.end = nil, nil, 0, 0
}

// poolBuffer takes a buffer from the user's pool.
func (o *TCPConnectionOptions) poolBuffer() []byte {
	buf, _ := o.BufferPool.Get().([]byte)
	if cap(buf) == 0 {
		buf = make([]byte, o.BufferSize)
	}
	return buf
}

// recycle takes back the memory of a message, to read into it again, if it has the size of what
// connections read into. It may be called from any goroutine.
func (b *inbox) recycle(buf []byte) {
	switch {
	case b.opt.BufferPool == nil && cap(buf) == scratchSize:
		scratches.Put((*[scratchSize]byte)(buf[:scratchSize]))
	case b.opt.BufferPool != nil && cap(buf) == b.pooled:
		//lint:ignore SA6002 the values of the user's pool are []byte, as Ergo documents it
		b.opt.BufferPool.Put(buf[:cap(buf)])
	}
}
