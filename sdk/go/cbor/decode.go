package cbor

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"time"
)

// Unmarshal sets a value from one CBOR data item. What it sets is a copy: the bytes may change afterwards.
func Unmarshal(item []byte, value any) error {
	v := reflect.ValueOf(value)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return errors.New("cbor: Unmarshal needs a pointer that is not nil")
	}
	r := reader{data: item}
	if err := r.value(v.Elem()); err != nil {
		return err
	}
	if r.at < len(item) {
		return r.fail("more bytes follow the item")
	}
	return nil
}

// within puts a step of the way in front of the path of an error.
func within(step string, err error) error {
	var misfit *TypeError
	if errors.As(err, &misfit) {
		if misfit.Path != "" && misfit.Path[0] != '[' {
			step += "."
		}
		misfit.Path = step + misfit.Path
	}
	return err
}

// value reads the next value.
func (r *reader) value(v reflect.Value) error {
	h, err := r.peek()
	if err != nil {
		return err
	}
	if h.isBreak() {
		return r.fail("a break ends nothing")
	}
	if h.major == majorSimple && (h.info == 22 || h.info == 23) && v.Kind() != reflect.Interface && v.Type() != rawType {
		return r.null(v)
	}
	if known, err := r.known(v); known {
		return err
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return r.value(v.Elem())
	case reflect.Interface:
		if v.NumMethod() > 0 {
			return r.misfit(v)
		}
		value, err := r.any()
		if err != nil {
			return err
		}
		if value == nil {
			v.SetZero()
		} else {
			v.Set(reflect.ValueOf(value))
		}
		return nil
	}
	switch h.major {
	case majorTag:
		return r.tagged(v)
	case majorList:
		return r.list(v)
	case majorMap:
		return r.mapping(v)
	}
	return r.scalar(h, v)
}

var rawType = reflect.TypeFor[RawMessage]()

func (r *reader) null(v reflect.Value) error {
	r.at++
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice:
		v.SetZero()
	}
	return nil
}

// known reads a value of a type that reads itself. It returns false if the type does not.
func (r *reader) known(v reflect.Value) (bool, error) {
	if !v.CanAddr() || v.Kind() == reflect.Pointer {
		return false, nil
	}
	start := r.at
	item := func() ([]byte, error) {
		err := r.skip()
		return r.data[start:r.at], err
	}
	switch target := v.Addr().Interface().(type) {
	case *RawMessage:
		raw, err := item()
		*target = append((*target)[:0:0], raw...)
		return true, err
	case *Tag, *ByteString, *big.Int, *time.Time:
		value, err := r.any()
		if err != nil {
			return true, err
		}
		if !setKnown(target, value) {
			return true, &TypeError{Value: describe(value), Type: v.Type()}
		}
		return true, nil
	case Unmarshaler:
		raw, err := item()
		if err == nil {
			err = target.UnmarshalCBOR(raw)
		}
		return true, err
	case encoding.TextUnmarshaler:
		h, err := r.peek()
		if err != nil || h.major != majorText {
			return err != nil, err
		}
		if h, err = r.head(); err != nil {
			return true, err
		}
		text, err := r.bytes(h)
		if err == nil {
			err = target.UnmarshalText(text)
		}
		return true, err
	}
	return false, nil
}

// setKnown sets a value of a type of this package, a number or a time from one that was read. It returns false if it does not fit.
func setKnown(target, value any) bool {
	switch target := target.(type) {
	case *Tag:
		tag, ok := value.(Tag)
		*target = tag
		return ok
	case *ByteString:
		bytes, ok := value.([]byte)
		*target = ByteString(bytes)
		return ok
	case *big.Int:
		switch number := value.(type) {
		case int64:
			target.SetInt64(number)
		case uint64:
			target.SetUint64(number)
		case *big.Int:
			target.Set(number)
		default:
			return false
		}
		return true
	case *time.Time:
		return setTime(target, value)
	}
	return false
}

// setTime sets a time from a text, or from one with tag 0, or from seconds with tag 1.
func setTime(target *time.Time, value any) bool {
	if tag, ok := value.(Tag); ok && tag.Number <= 1 {
		value = tag.Content
		if seconds, ok := value.(int64); ok && tag.Number == 1 {
			*target = time.Unix(seconds, 0).UTC()
			return true
		}
		if seconds, ok := value.(float64); ok && tag.Number == 1 && math.Abs(seconds) < 1<<53 {
			whole := math.Floor(seconds)
			*target = time.Unix(int64(whole), int64((seconds-whole)*1e9)).UTC()
			return true
		}
	}
	text, ok := value.(string)
	if !ok {
		return false
	}
	parsed, err := time.Parse(time.RFC3339Nano, text)
	*target = parsed
	return err == nil
}

// misfit takes a value, and says that it does not fit.
func (r *reader) misfit(v reflect.Value) error {
	value, err := r.any()
	if err != nil {
		return err
	}
	return &TypeError{Value: describe(value), Type: v.Type()}
}

// describe returns a value as a message shows it.
func describe(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case string:
		if len(value) > 40 {
			return "a text"
		}
		return "the text " + strconv.Quote(value)
	case []byte:
		return "bytes"
	case []any:
		return "a list"
	case map[string]any, map[any]any:
		return "a map"
	case Tag:
		return fmt.Sprintf("a value with tag %d", value.Number)
	}
	return fmt.Sprint(value)
}

// tagged reads a value with a tag: a whole number of any size as a number, any other as what has the tag.
func (r *reader) tagged(v reflect.Value) error {
	start := r.at
	h, err := r.head()
	if err != nil {
		return err
	}
	if h.argument == 2 || h.argument == 3 {
		r.at = start
		return r.misfit(v)
	}
	if err := r.enter(); err != nil {
		return err
	}
	err = r.value(v)
	r.depth--
	return err
}

func (r *reader) list(v reflect.Value) error {
	if v.Kind() != reflect.Slice && v.Kind() != reflect.Array || v.Type().Elem().Kind() == reflect.Uint8 {
		return r.misfit(v)
	}
	h, err := r.head()
	if err != nil {
		return err
	}
	if v.Kind() == reflect.Array && !h.untilBreak() && h.argument != uint64(v.Len()) {
		return &TypeError{Value: fmt.Sprintf("a list of %d", h.argument), Type: v.Type()}
	}
	if v.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(v.Type(), 0, int(min(h.argument, 1024))))
	}
	index := 0
	err = r.each(h, func() error {
		if v.Kind() == reflect.Slice {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		} else if index == v.Len() {
			return &TypeError{Value: "a longer list", Type: v.Type()}
		}
		index++
		if err := r.value(v.Index(index - 1)); err != nil {
			return within("["+strconv.Itoa(index-1)+"]", err)
		}
		return nil
	})
	if err == nil && v.Kind() == reflect.Array && index < v.Len() {
		return &TypeError{Value: fmt.Sprintf("a list of %d", index), Type: v.Type()}
	}
	return err
}

func (r *reader) mapping(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Struct:
		return r.structure(v)
	case reflect.Map:
	default:
		return r.misfit(v)
	}
	h, err := r.head()
	if err != nil {
		return err
	}
	v.Set(reflect.MakeMap(v.Type()))
	return r.each(h, func() error {
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if err := r.key(key); err != nil {
			return err
		}
		if err := r.value(value); err != nil {
			return within(fmt.Sprint(key), err)
		}
		v.SetMapIndex(key, value)
		return nil
	})
}

// key reads a key of a map.
func (r *reader) key(v reflect.Value) error {
	if v.Kind() != reflect.Interface {
		return r.value(v)
	}
	key, err := r.any()
	if err != nil {
		return err
	}
	if key, err = hashable(key); err != nil {
		return err
	}
	if key != nil {
		v.Set(reflect.ValueOf(key))
	}
	return nil
}

func (r *reader) structure(v reflect.Value) error {
	h, err := r.head()
	if err != nil {
		return err
	}
	fields := fieldsOf(v.Type())
	return r.each(h, func() error {
		key, err := r.peek()
		if err != nil {
			return err
		}
		if key.major != majorText {
			if err := r.skip(); err != nil {
				return err
			}
			return r.skip()
		}
		if key, err = r.head(); err != nil {
			return err
		}
		name, err := r.bytes(key)
		if err != nil {
			return err
		}
		f, found := fieldFor(fields, string(name))
		if !found {
			return r.skip()
		}
		return within(f.name, r.value(v.FieldByIndex(f.index)))
	})
}
