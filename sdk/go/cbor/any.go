package cbor

import (
	"fmt"
	"math"
	"math/big"
)

// big returns the whole number of a head.
func (h head) big() *big.Int {
	number := new(big.Int).SetUint64(h.argument)
	if h.major == majorNegative {
		number.Not(number)
	}
	return number
}

// any reads the next value as the type that fits it best.
func (r *reader) any() (any, error) {
	h, err := r.head()
	if err != nil {
		return nil, err
	}
	switch h.major {
	case majorUnsigned:
		if h.argument <= math.MaxInt64 {
			return int64(h.argument), nil
		}
		return h.argument, nil
	case majorNegative:
		if h.argument <= math.MaxInt64 {
			return -1 - int64(h.argument), nil
		}
		return h.big(), nil
	case majorBytes:
		whole, err := r.bytes(h)
		return append([]byte{}, whole...), err
	case majorText:
		whole, err := r.bytes(h)
		return string(whole), err
	case majorList:
		return r.anyList(h)
	case majorMap:
		return r.anyMap(h)
	case majorTag:
		return r.anyTag(h)
	}
	switch {
	case h.isBreak():
		return nil, r.fail("a break ends nothing")
	case h.isFloat():
		return h.float(), nil
	case h.argument == 20 || h.argument == 21:
		return h.argument == 21, nil
	}
	return nil, nil
}

func (r *reader) anyList(h head) (any, error) {
	list := make([]any, 0, min(h.argument, 1024))
	err := r.each(h, func() error {
		value, err := r.any()
		list = append(list, value)
		return err
	})
	return list, err
}

func (r *reader) anyMap(h head) (any, error) {
	texts, others := map[string]any{}, map[any]any(nil)
	err := r.each(h, func() error {
		key, err := r.any()
		if err != nil {
			return err
		}
		value, err := r.any()
		if err != nil {
			return err
		}
		if text, ok := key.(string); ok && others == nil {
			texts[text] = value
			return nil
		}
		if others == nil {
			others = map[any]any{}
			for text, value := range texts {
				others[text] = value
			}
		}
		if key, err = hashable(key); err == nil {
			others[key] = value
		}
		return err
	})
	if others != nil {
		return others, err
	}
	return texts, err
}

// hashable returns a key of a map as a value that Go's maps take as a key.
func hashable(key any) (any, error) {
	switch key := key.(type) {
	case []byte:
		return ByteString(key), nil
	case []any, map[string]any, map[any]any, Tag, *big.Int:
		return nil, fmt.Errorf("%s cannot be the key of a map in Go", describe(key))
	}
	return key, nil
}

func (r *reader) anyTag(h head) (any, error) {
	if err := r.enter(); err != nil {
		return nil, err
	}
	content, err := r.any()
	r.depth--
	if err != nil || h.argument == tagOfCBOR {
		return content, err
	}
	if h.argument == 2 || h.argument == 3 {
		bytes, ok := content.([]byte)
		if !ok {
			return nil, r.fail("a large number is not bytes")
		}
		number := new(big.Int).SetBytes(bytes)
		if h.argument == 3 {
			number.Not(number)
		}
		return narrow(number), nil
	}
	return Tag{h.argument, content}, nil
}

// narrow returns a whole number as the smallest type that this package reads it into.
func narrow(number *big.Int) any {
	switch {
	case number.IsInt64():
		return number.Int64()
	case number.IsUint64():
		return number.Uint64()
	}
	return number
}
