package main

import (
	"errors"
	"testing"

	"pcluster"
)

func TestLongWordsAreKept(t *testing.T) {
	cx := pcluster.NewContext(pcluster.Info{Config: config{Least: 5}})
	if got, err := keep(cx, word{"größe"}); err != nil || got.Word != "größe" {
		t.Errorf("keep gave %v, %v", got, err)
	}
	if _, err := keep(cx, word{"maß"}); !errors.Is(err, pcluster.Drop) {
		t.Errorf("a short word gave %v, want Drop", err)
	}
}
