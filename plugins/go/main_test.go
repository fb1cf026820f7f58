package main

import (
	"errors"
	"slices"
	"testing"

	"pcluster"
)

var context = pcluster.NewContext(pcluster.Info{
	Config: map[string]any{"labels": map[string]string{"pea": "seed"}},
})

func TestWords(t *testing.T) {
	var given []string
	for word, err := range words(context, " a pea ") {
		if err != nil {
			t.Fatal(err)
		}
		given = append(given, word)
	}
	if want := []string{"a", "pea"}; !slices.Equal(given, want) {
		t.Errorf("words gave %q, want %q", given, want)
	}
}

func TestClassify(t *testing.T) {
	known, err := load(context)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := known.classify(context, "pea"); err != nil || got != (labeled{"pea", "seed"}) {
		t.Errorf("a pea is %v, %v", got, err)
	}
	if _, err := known.classify(context, "sea"); !errors.Is(err, pcluster.Drop) {
		t.Errorf("a word without a label gives %v, want Drop", err)
	}
	if _, err := load(pcluster.NewContext(pcluster.Info{})); err == nil {
		t.Error("without labels there is no state")
	}
}

func TestDescribe(t *testing.T) {
	if got, err := describe(context, labeled{"pea", "seed"}); err != nil || got != "pea: seed" {
		t.Errorf("describe gave %q, %v", got, err)
	}
	if _, err := describe(context, labeled{"pebble", "stone"}); err == nil {
		t.Error("a stone is described")
	}
}
