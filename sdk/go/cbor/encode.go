package cbor

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"sort"
	"time"
	"unicode/utf8"
)

// Marshal returns a value as one CBOR data item.
func Marshal(value any) ([]byte, error) {
	return Append(nil, value)
}

// Append appends a value as one CBOR data item. It returns the bytes as they were, and the error, if the value cannot be written.
func Append(to []byte, value any) ([]byte, error) {
	e := encoder{out: to}
	if err := e.value(reflect.ValueOf(value)); err != nil {
		return to, err
	}
	return e.out, nil
}

type encoder struct {
	out   []byte
	depth int
}

// value writes a value. The types that most items are made of come first.
func (e *encoder) value(v reflect.Value) error {
	if !v.IsValid() {
		e.null()
		return nil
	}
	if known, err := e.known(v); known || err != nil {
		return err
	}
	switch v.Kind() {
	case reflect.Bool:
		e.out = append(e.out, 0xf4)
		if v.Bool() {
			e.out[len(e.out)-1]++
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.integer(v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		e.head(majorUnsigned, v.Uint())
	case reflect.Float32, reflect.Float64:
		e.float(v.Float())
	case reflect.String:
		return e.text(v.String())
	case reflect.Slice, reflect.Array:
		return e.list(v)
	case reflect.Map:
		return e.nested(func() error { return e.mapping(v) })
	case reflect.Struct:
		return e.nested(func() error { return e.structure(v) })
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			e.null()
			return nil
		}
		return e.value(v.Elem())
	default:
		return fmt.Errorf("a value of type %s cannot be written", v.Type())
	}
	return nil
}

// known writes a value of a type that has a form of its own. It returns false if the value is of no such type.
func (e *encoder) known(v reflect.Value) (bool, error) {
	if v.NumMethod() == 0 && v.Kind() != reflect.Slice && v.Kind() != reflect.Struct && v.Kind() != reflect.String ||
		v.Kind() == reflect.Interface || !v.CanInterface() {
		return false, nil
	}
	isNil := v.Kind() == reflect.Pointer && v.IsNil()
	switch value := v.Interface().(type) {
	case RawMessage:
		if value == nil {
			e.null()
			return true, nil
		}
		return true, e.raw(value)
	case []byte:
		e.bytes(value)
	case ByteString:
		e.bytes([]byte(value))
	case Tag:
		e.head(majorTag, value.Number)
		return true, e.nested(func() error { return e.value(reflect.ValueOf(value.Content)) })
	case big.Int:
		e.big(&value)
	case *big.Int:
		if isNil {
			return false, nil
		}
		e.big(value)
	case time.Time:
		e.head(majorTag, 0)
		return true, e.text(value.Format(time.RFC3339Nano))
	case Marshaler:
		if isNil {
			return false, nil
		}
		item, err := value.MarshalCBOR()
		if err != nil {
			return true, err
		}
		return true, e.raw(item)
	case encoding.TextMarshaler:
		if isNil {
			return false, nil
		}
		text, err := value.MarshalText()
		if err != nil {
			return true, err
		}
		return true, e.text(string(text))
	default:
		return false, nil
	}
	return true, nil
}

func (e *encoder) head(major byte, argument uint64) {
	e.out = appendHead(e.out, major, argument)
}

func (e *encoder) null() {
	e.out = append(e.out, 0xf6)
}

// float writes a float. All that are not a number are one.
func (e *encoder) float(number float64) {
	bits := math.Float64bits(number)
	if math.IsNaN(number) {
		bits = 0x7ff8 << 48
	}
	e.out = binary.BigEndian.AppendUint64(append(e.out, 0xfb), bits)
}

func (e *encoder) integer(number int64) {
	if number < 0 {
		e.head(majorNegative, uint64(-1-number))
	} else {
		e.head(majorUnsigned, uint64(number))
	}
}

func (e *encoder) bytes(value []byte) {
	if value == nil {
		e.null()
		return
	}
	e.head(majorBytes, uint64(len(value)))
	e.out = append(e.out, value...)
}

func (e *encoder) text(text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("the text %q is not UTF-8", text)
	}
	e.head(majorText, uint64(len(text)))
	e.out = append(e.out, text...)
	return nil
}

func (e *encoder) raw(item []byte) error {
	r := reader{data: item, depth: e.depth}
	if err := r.skip(); err != nil {
		return err
	}
	if r.at < len(item) {
		return r.fail("more bytes follow the item")
	}
	e.out = append(e.out, item...)
	return nil
}

// big writes a whole number of any size.
func (e *encoder) big(number *big.Int) {
	major, magnitude := byte(majorUnsigned), number
	if number.Sign() < 0 {
		major, magnitude = majorNegative, new(big.Int).Not(number)
	}
	if magnitude.IsUint64() {
		e.head(major, magnitude.Uint64())
		return
	}
	e.head(majorTag, 2+uint64(major))
	e.bytes(magnitude.Bytes())
}

// nested writes what is in a value.
func (e *encoder) nested(write func() error) error {
	if e.depth == maxDepth {
		return fmt.Errorf("nested more than %d deep", maxDepth)
	}
	e.depth++
	defer func() { e.depth-- }()
	return write()
}

func (e *encoder) list(v reflect.Value) error {
	if v.Kind() == reflect.Slice && v.IsNil() {
		e.null()
		return nil
	}
	if v.Type().Elem().Kind() == reflect.Uint8 {
		whole := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(whole), v)
		e.bytes(whole)
		return nil
	}
	e.head(majorList, uint64(v.Len()))
	return e.nested(func() error {
		for i := range v.Len() {
			if err := e.value(v.Index(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *encoder) mapping(v reflect.Value) error {
	if v.IsNil() {
		e.null()
		return nil
	}
	type entry struct{ key, value []byte }
	entries := make([]entry, 0, v.Len())
	for each := v.MapRange(); each.Next(); {
		one := encoder{depth: e.depth}
		if err := one.value(each.Key()); err != nil {
			return err
		}
		size := len(one.out)
		if err := one.value(each.Value()); err != nil {
			return err
		}
		entries = append(entries, entry{one.out[:size], one.out[size:]})
	}
	sort.Slice(entries, func(i, j int) bool { return bytes.Compare(entries[i].key, entries[j].key) < 0 })
	e.head(majorMap, uint64(len(entries)))
	for _, one := range entries {
		e.out = append(append(e.out, one.key...), one.value...)
	}
	return nil
}

func (e *encoder) structure(v reflect.Value) error {
	fields := fieldsOf(v.Type())
	written := 0
	for _, f := range fields {
		if !f.omitEmpty || !isEmpty(v.FieldByIndex(f.index)) {
			written++
		}
	}
	e.head(majorMap, uint64(written))
	for _, f := range fields {
		value := v.FieldByIndex(f.index)
		if f.omitEmpty && isEmpty(value) {
			continue
		}
		if err := e.text(f.name); err != nil {
			return err
		}
		if err := e.value(value); err != nil {
			return err
		}
	}
	return nil
}

// isEmpty returns true for what omitempty leaves out.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}
