package cbor

import (
	"math"
	"math/big"
	"reflect"
)

// scalar reads a number, a bool, a text or bytes.
func (r *reader) scalar(h head, v reflect.Value) error {
	start := r.at
	if _, err := r.head(); err != nil {
		return err
	}
	fits := false
	switch {
	case h.major == majorBytes || h.major == majorText:
		whole, err := r.bytes(h)
		if err != nil {
			return err
		}
		fits = setString(h.major, whole, v)
	case h.major == majorUnsigned || h.major == majorNegative:
		fits = setInteger(h, v)
	case h.isFloat() && (v.Kind() == reflect.Float32 || v.Kind() == reflect.Float64):
		number := h.float()
		v.SetFloat(number)
		fits = v.Float() == number || math.IsNaN(number)
	case h.major == majorSimple && (h.argument == 20 || h.argument == 21) && v.Kind() == reflect.Bool:
		v.SetBool(h.argument == 21)
		fits = true
	}
	if fits {
		return nil
	}
	r.at = start
	return r.misfit(v)
}

// setString sets a text, or bytes. It returns false if they do not fit.
func setString(major byte, whole []byte, v reflect.Value) bool {
	isBytes := (v.Kind() == reflect.Slice || v.Kind() == reflect.Array) && v.Type().Elem().Kind() == reflect.Uint8
	switch {
	case major == majorText && v.Kind() == reflect.String:
		v.SetString(string(whole))
	case major == majorBytes && isBytes && v.Kind() == reflect.Slice:
		v.SetBytes(append([]byte{}, whole...))
	case major == majorBytes && isBytes && v.Len() == len(whole):
		reflect.Copy(v, reflect.ValueOf(whole))
	default:
		return false
	}
	return true
}

// setInteger sets a whole number. It returns false if it does not fit.
func setInteger(h head, v reflect.Value) bool {
	negative := h.major == majorNegative
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		number := int64(h.argument)
		if negative {
			number = -1 - number
		}
		v.SetInt(number)
		return h.argument <= math.MaxInt64 && v.Int() == number
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		v.SetUint(h.argument)
		return !negative && v.Uint() == h.argument
	case reflect.Float32, reflect.Float64:
		exact := h.big()
		number, _ := new(big.Float).SetInt(exact).Float64()
		v.SetFloat(number)
		back, accuracy := big.NewFloat(v.Float()).Int(nil)
		return accuracy == big.Exact && back.Cmp(exact) == 0
	}
	return false
}
