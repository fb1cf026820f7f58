// Command project-name is a plugin of pcluster.
package main

import (
	"fmt"
	"log/slog"
	"math"
	"unicode/utf8"

	"pcluster"
)

// word is an item.
type word struct {
	Word string `cbor:"word"`
}

// measured is what becomes of it.
type measured struct {
	Word    string `cbor:"word"`
	Letters int    `cbor:"letters"`
}

// config is what the config of the stage can set.
type config struct {
	Most int `cbor:"most"`
}

// measure counts the letters of a word.
func measure(cx *pcluster.Context, item word) (measured, error) {
	limits := config{Most: math.MaxInt}
	if err := cx.Config(&limits); err != nil {
		return measured{}, err
	}
	letters := utf8.RuneCountInString(item.Word)
	if letters > limits.Most {
		// No later attempt can succeed: the item becomes a dead letter at once.
		return measured{}, pcluster.Permanent(fmt.Errorf("%q is too long", item.Word))
	}
	slog.Info("measuring", "word", item.Word)
	return measured{item.Word, letters}, nil
}

func main() {
	pcluster.Map("task_name", measure)
}
