package main

import (
	"testing"

	"pcluster"
)

func TestLettersAreCounted(t *testing.T) {
	got, err := measure(pcluster.NewContext(pcluster.Info{}), word{"größe"})
	if want := (measured{"größe", 5}); err != nil || got != want {
		t.Errorf("measure gave %v, %v, want %v", got, err, want)
	}
}

func TestAWordThatIsTooLongFailsForGood(t *testing.T) {
	cx := pcluster.NewContext(pcluster.Info{Config: config{Most: 4}})
	if _, err := measure(cx, word{"größe"}); err == nil {
		t.Error("a word that is too long was measured")
	}
}
