package pcluster

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"pcluster/cbor"
)

// TestCases runs the cases that the SDKs of all languages share.
func TestCases(t *testing.T) {
	Map("cases", func(cx *Context, item any) (any, error) { return item, nil })
	for _, file := range []string{"../cases/values.json", "../cases/go.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []struct {
			Name    string
			In      string
			Out     *string
			Refused *string
		}
		if err := json.Unmarshal(text, &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, each := range cases {
			t.Run(each.Name, func(t *testing.T) {
				result := Run("cases", unhex(t, each.In), Info{})
				switch {
				case each.Refused != nil:
					if !result.Permanent {
						t.Errorf("it is taken, and gives %x", result.Outputs)
					}
				case len(result.Outputs) != 1:
					t.Errorf("it is refused: %s", result.Reason)
				case !bytes.Equal(canonical(t, result.Outputs[0]), canonical(t, unhex(t, *each.Out))):
					t.Errorf("it gives %x, not %s", result.Outputs[0], *each.Out)
				}
			})
		}
	}
}

func unhex(t *testing.T, text string) []byte {
	item, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return item
}

// canonical returns the one form of all items with the same meaning.
func canonical(t *testing.T, item []byte) []byte {
	var value any
	if err := cbor.Unmarshal(item, &value); err != nil {
		t.Fatal(err)
	}
	written, err := cbor.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return written
}
