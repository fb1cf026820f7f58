package main

import (
	"slices"
	"testing"

	"pcluster"
)

func words(t *testing.T, text string) []string {
	var words []string
	for word, err := range split(pcluster.NewContext(pcluster.Info{}), line{text}) {
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, word.Word)
	}
	return words
}

func TestATextIsSplitIntoItsWords(t *testing.T) {
	want := []string{"an", "über", "long", "text"}
	if got := words(t, "An ÜBER-long text"); !slices.Equal(got, want) {
		t.Errorf("split gave %q, want %q", got, want)
	}
	if got := words(t, " "); len(got) != 0 {
		t.Errorf("no words gave %q", got)
	}
}
