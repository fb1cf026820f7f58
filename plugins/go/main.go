// Command harvest tells what the words of a text are: three tasks in Go, as chain.toml puts them together.
package main

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"

	"pcluster"
)

// words gives each word of a text.
func words(cx *pcluster.Context, text string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for word := range strings.FieldsSeq(text) {
			if !yield(word, nil) {
				return
			}
		}
	}
}

// labeled is a word with its label.
type labeled struct {
	Word  string `cbor:"word"`
	Label string `cbor:"label"`
}

// labels is the state of classify: the label of each word.
type labels map[string]string

// load makes the state from the stage's config.
func load(cx *pcluster.Context) (labels, error) {
	var config struct {
		Labels labels `cbor:"labels"`
	}
	if err := cx.Config(&config); err != nil {
		return nil, err
	}
	if len(config.Labels) == 0 {
		return nil, pcluster.Permanent(errors.New("the stage's config has no labels"))
	}
	return config.Labels, nil
}

// classify labels a word, or drops it.
func (l labels) classify(cx *pcluster.Context, word string) (labeled, error) {
	label, known := l[word]
	if !known {
		return labeled{}, pcluster.Drop
	}
	return labeled{word, label}, nil
}

// describe describes a word with its label.
func describe(cx *pcluster.Context, item labeled) (string, error) {
	if item.Label == "stone" {
		return "", pcluster.Permanent(fmt.Errorf("nobody harvests a %s", item.Word))
	}
	slog.Debug("describing", "word", item.Word, "attempt", cx.Attempt())
	return item.Word + ": " + item.Label, nil
}

func main() {
	pcluster.Generator("words", words)
	pcluster.MapWith("classify", load, labels.classify)
	pcluster.Map("describe", describe)
}
