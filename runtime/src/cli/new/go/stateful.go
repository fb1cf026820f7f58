// Command project-name is a plugin of pcluster.
package main

import (
	"errors"

	"pcluster"
)

// word is an item.
type word struct {
	Word string `cbor:"word"`
}

// explained is what becomes of it.
type explained struct {
	Word    string  `cbor:"word"`
	Meaning *string `cbor:"meaning"`
}

// config is what the config of the stage can set.
type config struct {
	Meanings map[string]string `cbor:"meanings"`
}

// meanings is the state: a large table in practice.
type meanings map[string]string

// load makes the state, once. Each item starts with a copy of it, which costs nothing.
func load(cx *pcluster.Context) (meanings, error) {
	var given config
	if err := cx.Config(&given); err != nil {
		return nil, err
	}
	if len(given.Meanings) == 0 {
		return nil, pcluster.Permanent(errors.New("the config of the stage has no meanings"))
	}
	return given.Meanings, nil
}

// explain adds the meaning of a word.
func (m meanings) explain(cx *pcluster.Context, item word) (explained, error) {
	found := explained{Word: item.Word}
	if meaning, known := m[item.Word]; known {
		found.Meaning = &meaning
	}
	return found, nil
}

func main() {
	pcluster.MapWith("task_name", load, meanings.explain)
}
