// Command w1 has the three typical stages in Go.
package main

import (
	"iter"
	"strings"

	"pcluster"
)

// record is the item and output of the tasks.
type record struct {
	ID    uint64  `cbor:"id"`
	Text  string  `cbor:"text"`
	Words *uint64 `cbor:"words,omitempty"`
}

// halve splits a record into two with half of the text each.
func halve(cx *pcluster.Context, item record) iter.Seq2[record, error] {
	return func(yield func(record, error) bool) {
		middle := len(item.Text) / 2
		if yield(record{ID: item.ID * 2, Text: item.Text[:middle]}, nil) {
			yield(record{ID: item.ID*2 + 1, Text: item.Text[middle:]}, nil)
		}
	}
}

// countWords puts the text in upper case and counts its words.
func countWords(cx *pcluster.Context, item record) (record, error) {
	words := uint64(len(strings.Fields(item.Text)))
	return record{item.ID, strings.ToUpper(item.Text), &words}, nil
}

// keepEven keeps the records whose id is even.
func keepEven(cx *pcluster.Context, item record) (record, error) {
	if item.ID%2 != 0 {
		return record{}, pcluster.Drop
	}
	return item, nil
}

func main() {
	pcluster.Generator("halve", halve)
	pcluster.Map("count_words", countWords)
	pcluster.Map("keep_even", keepEven)
}
