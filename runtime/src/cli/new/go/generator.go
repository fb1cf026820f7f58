// Command project-name is a plugin of pcluster.
package main

import (
	"iter"
	"strings"
	"unicode"

	"pcluster"
)

// line is an item.
type line struct {
	Text string `cbor:"text"`
}

// word is one of the items that come of it.
type word struct {
	Word string `cbor:"word"`
}

// split splits a text into its words.
func split(cx *pcluster.Context, item line) iter.Seq2[word, error] {
	isBetween := func(letter rune) bool {
		return !unicode.IsLetter(letter) && !unicode.IsDigit(letter)
	}
	return func(yield func(word, error) bool) {
		for part := range strings.FieldsFuncSeq(item.Text, isBetween) {
			if !yield(word{strings.ToLower(part)}, nil) {
				return
			}
		}
	}
}

func main() {
	pcluster.Generator("task_name", split)
}
