package cbor

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// reader reads heads and strings.
type reader struct {
	data  []byte
	at    int
	depth int
}

// head is the beginning of a value.
type head struct {
	major, info byte
	argument    uint64
}

// untilBreak returns true for a string in pieces, or a list or map without a length.
func (h head) untilBreak() bool {
	return h.info == 31
}

func (h head) isBreak() bool {
	return h.major == majorSimple && h.info == 31
}

func (r *reader) fail(reason string) error {
	return &SyntaxError{Offset: r.at, reason: reason}
}

// peek returns the head of the next value.
func (r *reader) peek() (head, error) {
	h, _, err := r.parse()
	return h, err
}

// head takes the head of the next value.
func (r *reader) head() (head, error) {
	h, size, err := r.parse()
	r.at += size
	return h, err
}

func (r *reader) parse() (h head, size int, err error) {
	rest := r.data[r.at:]
	if len(rest) == 0 {
		return h, 0, r.fail("the data ends too early")
	}
	h = head{major: rest[0] >> 5, info: rest[0] & 31}
	switch {
	case h.info < 20 && h.major == majorSimple:
		return h, 0, r.fail("there is no such simple value")
	case h.info < 24:
		h.argument = uint64(h.info)
		return h, 1, nil
	case h.info < 28:
		width := 1 << (h.info - 24)
		if len(rest) <= width {
			return h, 0, r.fail("the data ends too early")
		}
		var wide [8]byte
		copy(wide[8-width:], rest[1:1+width])
		h.argument = binary.BigEndian.Uint64(wide[:])
		if h.major == majorSimple && h.info == 24 {
			return h, 0, r.fail("there is no such simple value")
		}
		return h, 1 + width, nil
	case h.info == 31 && h.major >= majorBytes && h.major != majorTag:
		return h, 1, nil
	}
	return h, 0, r.fail("no value begins like this")
}

// bytes takes the bytes of a string without a copy, unless it comes in pieces.
func (r *reader) bytes(h head) ([]byte, error) {
	if !h.untilBreak() {
		return r.piece(h)
	}
	whole := []byte{}
	for {
		next, err := r.head()
		switch {
		case err != nil:
			return nil, err
		case next.isBreak():
			return whole, nil
		case next.major != h.major || next.untilBreak():
			return nil, r.fail("a piece of a string is none")
		}
		piece, err := r.piece(next)
		if err != nil {
			return nil, err
		}
		whole = append(whole, piece...)
	}
}

func (r *reader) piece(h head) ([]byte, error) {
	if h.argument > uint64(len(r.data)-r.at) {
		return nil, r.fail("the data ends too early")
	}
	piece := r.data[r.at : r.at+int(h.argument)]
	if h.major == majorText && !utf8.Valid(piece) {
		return nil, r.fail("a text is not UTF-8")
	}
	r.at += len(piece)
	return piece, nil
}

// each calls for each value of a list, or each key of a map, after which the call must take the value.
func (r *reader) each(h head, call func() error) error {
	if err := r.enter(); err != nil {
		return err
	}
	for left := h.argument; h.untilBreak() || left > 0; left-- {
		if h.untilBreak() {
			next, err := r.peek()
			if err != nil {
				return err
			}
			if next.isBreak() {
				r.at++
				break
			}
		}
		if err := call(); err != nil {
			return err
		}
	}
	r.depth--
	return nil
}

// enter begins a list, map or tag.
func (r *reader) enter() error {
	if r.depth == maxDepth {
		return r.fail("nested too deeply")
	}
	r.depth++
	return nil
}

// skip takes the next value, with all that is in it.
func (r *reader) skip() error {
	h, err := r.head()
	if err != nil {
		return err
	}
	switch h.major {
	case majorBytes, majorText:
		_, err = r.bytes(h)
	case majorList:
		err = r.each(h, r.skip)
	case majorMap:
		err = r.each(h, func() error {
			if err := r.skip(); err != nil {
				return err
			}
			return r.skip()
		})
	case majorTag:
		if next, _ := r.peek(); next.major != majorBytes && (h.argument == 2 || h.argument == 3) {
			return r.fail("a large number is not bytes")
		}
		if err = r.enter(); err == nil {
			err = r.skip()
			r.depth--
		}
	case majorSimple:
		if h.isBreak() {
			err = r.fail("a break ends nothing")
		}
	}
	return err
}

// float returns the value of a float's head.
func (h head) float() float64 {
	switch h.info {
	case 25:
		return half(uint16(h.argument))
	case 26:
		return float64(math.Float32frombits(uint32(h.argument)))
	}
	return math.Float64frombits(h.argument)
}

func (h head) isFloat() bool {
	return h.major == majorSimple && h.info >= 25 && h.info <= 27
}

func half(bits uint16) float64 {
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	var value float64
	switch exponent {
	case 0:
		value = math.Ldexp(fraction, -24)
	case 31:
		value = math.Inf(1)
		if fraction != 0 {
			value = math.NaN()
		}
	default:
		value = math.Ldexp(1024+fraction, exponent-25)
	}
	if bits>>15 == 1 {
		value = math.Copysign(value, -1)
	}
	return value
}

// appendHead appends the head of a value.
func appendHead(to []byte, major byte, argument uint64) []byte {
	switch major <<= 5; {
	case argument < 24:
		return append(to, major|byte(argument))
	case argument <= math.MaxUint8:
		return append(to, major|24, byte(argument))
	case argument <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(to, major|25), uint16(argument))
	case argument <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(to, major|26), uint32(argument))
	}
	return binary.BigEndian.AppendUint64(append(to, major|27), argument)
}
