package meta

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"

	"github.com/ergotls/ergotls/internal/needs"
)

func must(split bufio.SplitFunc, err error) bufio.SplitFunc {
	if err != nil {
		panic(err)
	}
	return split
}

// splits are the framings that every test of them runs over.
var splits = map[string]bufio.SplitFunc{
	"lines":           bufio.ScanLines,
	"words":           bufio.ScanWords,
	"bytes":           bufio.ScanBytes,
	"runes":           bufio.ScanRunes,
	"fixed 1":         must(FixedLength(1)),
	"fixed 7":         must(FixedLength(7)),
	"prefix 1":        must(LengthPrefixed{Width: 1}.Split()),
	"prefix 2":        must(LengthPrefixed{Width: 2, MaxPayload: 100}.Split()),
	"prefix 2 little": must(LengthPrefixed{Width: 2, LittleEndian: true, KeepHeader: true}.Split()),
	"prefix 4":        must(LengthPrefixed{Width: 4, Offset: 2, HeaderSize: 9}.Split()),
	"prefix 8":        must(LengthPrefixed{Width: 8, IncludesHeader: true}.Split()),
}

// frames runs a stream through an inbox in the pieces that r gives, and returns the frames and what
// ended them.
func frames(split bufio.SplitFunc, maxFrame int, r io.Reader) (got [][]byte, reason error) {
	b := inbox{opt: &TCPConnectionOptions{Split: split, MaxFrame: maxFrame}}
	defer b.discard()
	for {
		for b.err == nil && !b.full() {
			n, err := r.Read(b.space())
			b.end += n
			b.err = err
			if err == nil {
				break
			}
		}
		for {
			data, reason, _ := b.nextFrame()
			if reason != nil {
				return got, reason
			}
			if data == nil {
				break
			}
			got = append(got, data)
		}
		if b.err != nil {
			return got, b.err
		}
		if len(got)%2 == 0 { // a connection parks only where nothing more has arrived
			b.park()
		}
	}
}

func TestLengthPrefixed(t *testing.T) {
	be, le := binary.BigEndian, binary.LittleEndian
	for name, test := range map[string]struct {
		l      LengthPrefixed
		stream []byte
		want   []string
		reason error
	}{
		"1 byte":          {LengthPrefixed{Width: 1}, []byte("\x02ab\x00\x01c"), []string{"ab", "", "c"}, io.EOF},
		"2 bytes":         {LengthPrefixed{Width: 2}, append(be.AppendUint16(nil, 3), "abc"...), []string{"abc"}, io.EOF},
		"4 bytes little":  {LengthPrefixed{Width: 4, LittleEndian: true}, append(le.AppendUint32(nil, 3), "abc"...), []string{"abc"}, io.EOF},
		"8 bytes":         {LengthPrefixed{Width: 8}, append(be.AppendUint64(nil, 3), "abc"...), []string{"abc"}, io.EOF},
		"inclusive":       {LengthPrefixed{Width: 2, IncludesHeader: true}, append(be.AppendUint16(nil, 5), "abc"...), []string{"abc"}, io.EOF},
		"keep header":     {LengthPrefixed{Width: 1, KeepHeader: true}, []byte("\x01a"), []string{"\x01a"}, io.EOF},
		"offset":          {LengthPrefixed{Width: 1, Offset: 1, HeaderSize: 4}, []byte("T\x02xxab"), []string{"ab"}, io.EOF},
		"largest payload": {LengthPrefixed{Width: 1, MaxPayload: 2}, []byte("\x02ab"), []string{"ab"}, io.EOF},
		"too large":       {LengthPrefixed{Width: 1, MaxPayload: 2}, []byte("\x01a\x03abc"), []string{"a"}, ErrFrameTooLarge},
		"over MaxFrame":   {LengthPrefixed{Width: 4}, append(be.AppendUint32(nil, 1<<30), make([]byte, 4<<10)...), nil, ErrFrameTooLarge},
		"2^64-1":          {LengthPrefixed{Width: 8}, bytes.Repeat([]byte{255}, 8), nil, ErrFrameTooLarge},
		"shorter than its header": {LengthPrefixed{Width: 2, IncludesHeader: true},
			be.AppendUint16(nil, 1), nil, ErrFraming},
		"cut in the header":  {LengthPrefixed{Width: 4}, []byte{0, 0}, nil, ErrFraming},
		"cut in the payload": {LengthPrefixed{Width: 1}, []byte("\x03ab"), nil, ErrFraming},
	} {
		t.Run(name, func(t *testing.T) {
			for way, r := range map[string]io.Reader{
				"at once":           bytes.NewReader(test.stream),
				"byte by byte":      iotest.OneByteReader(bytes.NewReader(test.stream)),
				"EOF with the data": iotest.DataErrReader(bytes.NewReader(test.stream)),
			} {
				got, reason := frames(must(test.l.Split()), 4<<10, r)
				assert.ErrorIs(t, reason, test.reason, way)
				assert.Equal(t, test.want, texts(got), way)
			}
		})
	}
}

func texts(frames [][]byte) (all []string) {
	for _, f := range frames {
		all = append(all, string(f))
	}
	return all
}

func TestFramingOptions(t *testing.T) {
	for name, l := range map[string]LengthPrefixed{
		"Width":      {Width: 3},
		"Offset":     {Width: 1, Offset: -1},
		"HeaderSize": {Width: 4, HeaderSize: 3},
		"MaxPayload": {Width: 4, MaxPayload: -1},
	} {
		_, err := l.Split()
		assert.ErrorIs(t, err, ErrOption)
		assert.ErrorContains(t, err, "LengthPrefixed."+name)
	}
	_, err := FixedLength(0)
	assert.ErrorIs(t, err, ErrOption)
}

// Split functions that do what none should.
func TestHostileSplit(t *testing.T) {
	for name, test := range map[string]struct {
		split  bufio.SplitFunc
		reason error
	}{
		"negative advance": {func([]byte, bool) (int, []byte, error) { return -1, nil, nil }, ErrFraming},
		"too far":          {func(data []byte, _ bool) (int, []byte, error) { return len(data) + 1, nil, nil }, ErrFraming},
		"no progress":      {func(data []byte, _ bool) (int, []byte, error) { return 0, data, nil }, ErrFraming},
		"its own error":    {func([]byte, bool) (int, []byte, error) { return 0, nil, errors.New("bad") }, ErrFraming},
		"never enough":     {func([]byte, bool) (int, []byte, error) { return 0, nil, nil }, ErrFrameTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			got, reason := frames(test.split, 1000, strings.NewReader(strings.Repeat("x", 2000)))
			assert.ErrorIs(t, reason, test.reason)
			assert.Empty(t, got)
		})
	}
}

// As bufio.Scanner does: the last token is delivered, what follows is not.
func TestFinalToken(t *testing.T) {
	split := func(data []byte, _ bool) (int, []byte, error) { return 1, data[:1], bufio.ErrFinalToken }
	got, reason := frames(split, 1000, strings.NewReader("abc"))
	assert.ErrorIs(t, reason, ErrTerminated)
	assert.Equal(t, []string{"a"}, texts(got))
}

// The end of the buffer is also the end of a frame.
func TestFramesFillTheBuffer(t *testing.T) {
	got, reason := frames(must(FixedLength(scratchSize)), scratchSize, bytes.NewReader(make([]byte, 5*scratchSize)))
	assert.Equal(t, io.EOF, reason)
	assert.Len(t, got, 5)
}

// What is skipped between frames is not a part of one, and how much has arrived makes no
// difference.
func TestMaxFrameIsOfFrames(t *testing.T) {
	const stream = "one" + "                    " + "two three"
	for way, r := range map[string]io.Reader{"at once": strings.NewReader(stream), "byte by byte": iotest.OneByteReader(strings.NewReader(stream))} {
		got, reason := frames(bufio.ScanWords, 10, r)
		assert.Equal(t, io.EOF, reason, way)
		assert.Equal(t, []string{"one", "two", "three"}, texts(got), way)
	}
}

// The largest number is no limit.
func TestLargestMaxFrame(t *testing.T) {
	got, reason := frames(bufio.ScanLines, math.MaxInt, strings.NewReader("one\ntwo\n"))
	assert.Equal(t, io.EOF, reason)
	assert.Equal(t, []string{"one", "two"}, texts(got))
}

// A cut stream's last piece is not taken for a frame: someone may have cut it.
func TestCutStreamLeavesNoFrame(t *testing.T) {
	got, reason := frames(bufio.ScanLines, 100, iotest.DataErrReader(io.MultiReader(
		strings.NewReader("whole\nDELETE /a"), iotest.ErrReader(io.ErrUnexpectedEOF))))
	assert.ErrorIs(t, reason, io.ErrUnexpectedEOF)
	assert.Equal(t, []string{"whole"}, texts(got))
}

// However a stream is cut into pieces, its frames are the same, and those of bufio.Scanner.
func FuzzSplit(f *testing.F) {
	needs.Corpus(f)
	names := make([]string, 0, len(splits))
	for name := range splits {
		names = append(names, name)
	}
	slices.Sort(names)
	f.Fuzz(func(t *testing.T, which uint8, seed uint64, maxFrame uint16, stream []byte) {
		split := splits[names[int(which)%len(names)]]
		limit := int(maxFrame)%4096 + utf8.UTFMax // ScanRunes looks so far ahead
		want, wantReason := frames(split, limit, bytes.NewReader(stream))
		got, reason := frames(split, limit, &pieces{stream, rand.New(rand.NewPCG(seed, 1))})
		if !slices.EqualFunc(got, want, bytes.Equal) || !errors.Is(reason, wantReason) {
			t.Fatalf("in pieces %q, %v; at once %q, %v", got, reason, want, wantReason)
		}
		if wantReason != io.EOF {
			return
		}
		scanner := bufio.NewScanner(bytes.NewReader(stream))
		scanner.Buffer(nil, 1<<20)
		scanner.Split(split)
		for i := 0; scanner.Scan(); i++ {
			if i >= len(want) || !bytes.Equal(scanner.Bytes(), want[i]) {
				t.Fatalf("frame %d: bufio.Scanner gives %q, of %q", i, scanner.Bytes(), want)
			}
		}
	})
}

// pieces reads a stream in random pieces.
type pieces struct {
	rest []byte
	rand *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:1+p.rand.IntN(len(p.rest))])
	p.rest = p.rest[n:]
	if len(p.rest) == 0 && p.rand.IntN(2) == 0 {
		return n, io.EOF
	}
	return n, nil
}
