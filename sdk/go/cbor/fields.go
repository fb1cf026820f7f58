package cbor

import (
	"reflect"
	"strings"
	"sync"
)

// field is a field of a struct that is a key of a map.
type field struct {
	name      string
	index     []int
	omitEmpty bool
}

// structFields has the fields of a type, as []field.
var structFields sync.Map

// fieldsOf returns the fields of a struct type in their order, with those of embedded structs.
func fieldsOf(t reflect.Type) []field {
	if known, ok := structFields.Load(t); ok {
		return known.([]field)
	}
	fields := appendFields(nil, t, nil)
	structFields.Store(t, fields)
	return fields
}

func appendFields(fields []field, t reflect.Type, outer []int) []field {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("cbor")
		if !tagged {
			tag, tagged = f.Tag.Lookup("json")
		}
		name, options, _ := strings.Cut(tag, ",")
		index := append(outer[:len(outer):len(outer)], i)
		switch {
		case tag == "-":
			continue
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			fields = appendFields(fields, f.Type, index)
			continue
		case !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		fields = setField(fields, field{name, index, strings.Contains(","+options+",", ",omitempty,")})
	}
	return fields
}

// setField adds a field. One that stands less deep hides another of its name.
func setField(fields []field, f field) []field {
	for i, other := range fields {
		if other.name == f.name {
			if len(f.index) < len(other.index) {
				fields[i] = f
			}
			return fields
		}
	}
	return append(fields, f)
}

// fieldFor returns the field for a key.
func fieldFor(fields []field, key string) (field, bool) {
	for _, f := range fields {
		if f.name == key {
			return f, true
		}
	}
	for _, f := range fields {
		if strings.EqualFold(f.name, key) {
			return f, true
		}
	}
	return field{}, false
}
