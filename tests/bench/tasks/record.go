// Command record has a task in Go that the benchmark of the engine measures.
package main

import (
	"strings"

	"pcluster"
)

type order struct {
	ID       int64    `cbor:"id"`
	Customer string   `cbor:"customer"`
	Articles []string `cbor:"articles"`
	Total    float64  `cbor:"total"`
	Paid     bool     `cbor:"paid"`
	Note     string   `cbor:"note"`
	Zone     string   `cbor:"zone"`
}

type summary struct {
	ID       int64   `cbor:"id"`
	Customer string  `cbor:"customer"`
	Articles int     `cbor:"articles"`
	Total    float64 `cbor:"total"`
	Paid     bool    `cbor:"paid"`
	Note     string  `cbor:"note"`
}

// summarize reads all of a record, and writes six fields.
func summarize(cx *pcluster.Context, item order) (summary, error) {
	return summary{item.ID + 1, strings.ToUpper(item.Customer), len(item.Articles), item.Total * 2, !item.Paid, item.Note}, nil
}

func main() {
	pcluster.Map("record", summarize)
}
