package cbor

import (
	"encoding/hex"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Deep uint8 `cbor:"deep"`
}

type everything struct {
	inner
	Text    string             `cbor:"text"`
	JSON    int16              `json:"json,omitempty"`
	Left    string             `cbor:"-"`
	Float   float64            `cbor:"float"`
	Narrow  float32            `cbor:"narrow"`
	Bytes   []byte             `cbor:"bytes"`
	Fixed   [2]byte            `cbor:"fixed"`
	Maybe   *everything        `cbor:"maybe"`
	List    []float64          `cbor:"list"`
	Pair    [2]int             `cbor:"pair"`
	Map     map[int]string     `cbor:"map"`
	Any     any                `cbor:"any"`
	Big     *big.Int           `cbor:"big"`
	Time    time.Time          `cbor:"time"`
	Address netip.Addr         `cbor:"address"`
	Tag     Tag                `cbor:"tag"`
	Raw     RawMessage         `cbor:"raw"`
	Keys    map[ByteString]any `cbor:"keys"`
}

func full() everything {
	huge, _ := new(big.Int).SetString("-340282366920938463463374607431768211456", 10)
	return everything{
		inner: inner{7}, Text: "größe", JSON: -5, Float: 2.5, Narrow: 0.5, Bytes: []byte{1}, Fixed: [2]byte{1, 2},
		Maybe: &everything{Raw: RawMessage{0xf6}, Tag: Tag{1, int64(5)}, Address: netip.MustParseAddr("::1"), Time: time.Unix(5, 0).UTC()},
		List:  []float64{1, math.Inf(-1)}, Pair: [2]int{1, -1}, Map: map[int]string{-1: "a", 300: "b"},
		Any: map[string]any{"list": []any{nil, true, int64(5), uint64(math.MaxUint64)}}, Big: huge,
		Time: time.Date(2024, 2, 29, 12, 0, 0, 5e8, time.FixedZone("", 3600)), Address: netip.MustParseAddr("127.0.0.1"),
		Tag: Tag{4000, "x"}, Raw: RawMessage{0x81, 0x01}, Keys: map[ByteString]any{"\xff": int64(1)},
	}
}

func TestRoundTrip(t *testing.T) {
	item, err := Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	var back everything
	if err := Unmarshal(item, &back); err != nil {
		t.Fatal(err)
	}
	again, err := Marshal(back)
	if err != nil || string(again) != string(item) {
		t.Errorf("it is written as %x and then as %x, %v", item, again, err)
	}
	if back.Text != "größe" || back.Deep != 7 || back.Any.(map[string]any)["list"].([]any)[3] != uint64(math.MaxUint64) {
		t.Errorf("it is read as %+v", back)
	}
	if !back.Time.Equal(full().Time) || back.Maybe.Maybe != nil || back.Big.Cmp(full().Big) != 0 {
		t.Errorf("it is read as %+v", back)
	}
}

func TestWritten(t *testing.T) {
	pointer := new(int)
	for _, each := range []struct {
		value any
		want  string
	}{
		{nil, "f6"}, {true, "f5"}, {false, "f4"}, {23, "17"}, {24, "1818"}, {-1, "20"}, {uint64(math.MaxUint64), "1bffffffffffffffff"},
		{int64(math.MinInt64), "3b7fffffffffffffff"}, {1.0, "fb3ff0000000000000"}, {float32(0.5), "fb3fe0000000000000"},
		{math.Copysign(0, -1), "fb8000000000000000"}, {"ä", "62c3a4"}, {[]byte{}, "40"}, {[]byte(nil), "f6"}, {[]int(nil), "f6"},
		{[]int{1, 2}, "820102"}, {map[string]int{"bb": 1, "a": 2}, "a26161026262620" + "1"}, {pointer, "00"},
		{new(big.Int).Lsh(big.NewInt(1), 64), "c249010000000000000000"}, {big.NewInt(-1), "20"}, {RawMessage{0x80}, "80"},
		{ByteString("a"), "4161"}, {Tag{2000, nil}, "d907d0f6"}, {struct{ A, b int }{1, 2}, "a1614101"},
		{struct {
			A int `cbor:"a,omitempty"`
		}{}, "a0"},
	} {
		item, err := Marshal(each.value)
		if got := hex.EncodeToString(item); err != nil || got != each.want {
			t.Errorf("%#v is written as %s, %v, want %s", each.value, got, err, each.want)
		}
	}
}

func TestNotWritten(t *testing.T) {
	deep := any(1)
	for range maxDepth + 1 {
		deep = []any{deep}
	}
	for _, each := range []any{"\xff", func() {}, make(chan int), RawMessage{}, RawMessage{1, 1}, deep, map[string]any{"\xff": 1}} {
		if item, err := Marshal(each); err == nil {
			t.Errorf("%T is written as %x", each, item)
		}
	}
}

func TestMisfits(t *testing.T) {
	type target struct {
		Small int8               `cbor:"small"`
		List  []struct{ N uint } `cbor:"list"`
		Map   map[string]bool    `cbor:"map"`
		F     float64
		Text  string
	}
	for _, each := range []struct{ item, want string }{
		{"a165736d616c6c1881", "small: 129 does not fit int8"},
		{"a1646c69737482a0a1614e20", "list[1].N: -1 does not fit uint"},
		{"a1636d6170a161780a", "map.x: 10 does not fit bool"},
		{"a161461b0020000000000001", "F: 9007199254740993 does not fit float64"},
		{"a16454657874fb3ff0000000000000", "Text: 1 does not fit string"},
		{"a1645465787441" + "61", "Text: bytes does not fit string"},
		{"a165736d616c6cfb3ff0000000000000", "small: 1 does not fit int8"},
		{"a165736d616c6cc24101", "small: 1 does not fit int8"},
		{"80", "a list does not fit cbor.target"},
		{"a1", "the data ends too early at byte 1"},
		{"a000", "more bytes follow the item at byte 1"},
		{"a16161ff", "a break ends nothing at byte 4"},
	} {
		item, err := hex.DecodeString(each.item)
		if err != nil {
			t.Fatal(err)
		}
		var to target
		if err := Unmarshal(item, &to); err == nil || err.Error() != each.want {
			t.Errorf("%s: %v, want %s", each.item, err, each.want)
		}
	}
}

func TestNull(t *testing.T) {
	to := struct {
		A *int
		B int
		C []int
		D any
	}{new(int), 5, []int{1}, 1}
	if err := Unmarshal([]byte("\xa4\x61A\xf6\x61B\xf6\x61C\xf6\x61D\xf6"), &to); err != nil {
		t.Fatal(err)
	}
	if to.A != nil || to.B != 5 || to.C != nil || to.D != nil {
		t.Errorf("null is read as %+v", to)
	}
}

func TestMalformed(t *testing.T) {
	for _, item := range []string{"", "\xa1", "\x62y", "\x9f\x01", "\x1c", "\xf8\x63", "\xe5", "\xc2\x01", "\xff", "\xbf\x01\xff", "\x7f\x41y\xff", "\x61\xff",
		"\x63\xed\xa0\x80", "\xdf\x01", "\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
		strings.Repeat("\x81", maxDepth+1) + "\x01", strings.Repeat("\xc1", 100000)} {
		var value any
		var raw RawMessage
		if err := Unmarshal([]byte(item), &value); err == nil {
			t.Errorf("%x is read as %v", item, value)
		}
		if err := Unmarshal([]byte(item), &raw); err == nil {
			t.Errorf("%x is an item", item)
		}
	}
}

func TestTimes(t *testing.T) {
	want := time.Date(2013, 3, 21, 20, 4, 0, 0, time.UTC)
	for _, item := range []string{"c074323031332d30332d32315432303a30343a30305a", "74323031332d30332d32315432303a30343a30305a", "c11a514b67b0", "c1fb41d452d9ec000000"} {
		bytes, err := hex.DecodeString(item)
		if err != nil {
			t.Fatal(err)
		}
		var got time.Time
		if err := Unmarshal(bytes, &got); err != nil || !got.Equal(want) {
			t.Errorf("%s is read as %v, %v", item, got, err)
		}
	}
}

func TestKeys(t *testing.T) {
	var value any
	if err := Unmarshal([]byte("\xa3\x01\x02\x41a\x03\x61x\x04"), &value); err != nil {
		t.Fatal(err)
	}
	want := map[any]any{int64(1): int64(2), ByteString("a"): int64(3), "x": int64(4)}
	if !reflect.DeepEqual(value, want) {
		t.Errorf("it is read as %#v", value)
	}
	if err := Unmarshal([]byte("\xa1\x80\x01"), &value); err == nil || err.Error() != "a list cannot be the key of a map in Go" {
		t.Errorf("a list as a key: %v", err)
	}
}
