// Package cbor reads and writes items: single CBOR data items.
//
// [Marshal] and [Unmarshal] work as those of encoding/json do. A struct becomes a map with the names of its exported fields as
// keys, in their order. The tag `cbor:"name,omitempty"` sets another name, and `json:"name,omitempty"` does if there is no tag
// for cbor; "-" leaves the field out. Without a field of exactly its name, a key fits one that differs in case alone, and is
// ignored if there is none.
//
// Read into an empty interface, a value is one of
//
//	nil, bool, string, []byte, float64, []any
//	int64             a whole number that fits
//	uint64            one from 2⁶³ to 2⁶⁴-1
//	*big.Int          one beyond
//	map[string]any    a map whose keys are all texts
//	map[any]any       any other map; bytes as a key are a [ByteString]
//	Tag               a tagged value
//
// Whole numbers keep their value, and are refused where it does not fit. A float is read from a whole number that it holds
// exactly, and never becomes one. Null, or undefined, sets a pointer, map, slice or interface to nil, and leaves any other value as it is.
// Text that is not UTF-8 is refused both ways. Of equal keys, the last counts. Maps are written in the order of their encoded
// keys, so that equal maps have equal bytes. Floats are written with 64 bits.
package cbor

import (
	"fmt"
	"reflect"
)

// The most lists, maps and tags that may be open at once.
const maxDepth = 128

// The major types.
const (
	majorUnsigned = iota
	majorNegative
	majorBytes
	majorText
	majorList
	majorMap
	majorTag
	majorSimple
)

// The tag that says that a value is CBOR, and nothing else.
const tagOfCBOR = 55799

// RawMessage is an item that is encoded already, or is to be decoded later.
type RawMessage []byte

// ByteString is bytes as a key of a map.
type ByteString string

// Tag is a value with a tag.
type Tag struct {
	Number  uint64
	Content any
}

// Marshaler is a type that writes itself.
type Marshaler interface {
	// MarshalCBOR returns the value as one CBOR data item.
	MarshalCBOR() ([]byte, error)
}

// Unmarshaler is a type that reads itself.
type Unmarshaler interface {
	// UnmarshalCBOR sets the value from one CBOR data item. It must copy what it keeps.
	UnmarshalCBOR(item []byte) error
}

// SyntaxError is the error of bytes that are not one CBOR data item.
type SyntaxError struct {
	// Offset is the place in the bytes.
	Offset int
	reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s at byte %d", e.reason, e.Offset)
}

// TypeError is the error of a value that does not fit where it is read to.
type TypeError struct {
	// Path leads to the value, as in "orders[2].price". It is empty for the item itself.
	Path string
	// Value describes the value.
	Value string
	// Type is the type that it does not fit.
	Type reflect.Type
}

func (e *TypeError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s does not fit %s", e.Value, e.Type)
	}
	return fmt.Sprintf("%s: %s does not fit %s", e.Path, e.Value, e.Type)
}
