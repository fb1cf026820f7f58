// Command project-name is a plugin of pcluster.
package main

import (
	"unicode/utf8"

	"pcluster"
)

// word is an item.
type word struct {
	Word string `cbor:"word"`
}

// config is what the config of the stage can set.
type config struct {
	Least int `cbor:"least"`
}

// keep keeps long words, and drops the others.
func keep(cx *pcluster.Context, item word) (word, error) {
	limits := config{Least: 1}
	if err := cx.Config(&limits); err != nil {
		return word{}, err
	}
	if utf8.RuneCountInString(item.Word) < limits.Least {
		return word{}, pcluster.Drop
	}
	return item, nil
}

func main() {
	pcluster.Map("task_name", keep)
}
