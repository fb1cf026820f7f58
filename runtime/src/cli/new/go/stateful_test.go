package main

import (
	"testing"

	"pcluster"
)

func TestAWordIsExplainedFromTheState(t *testing.T) {
	cx := pcluster.NewContext(pcluster.Info{Config: config{Meanings: meanings{"eg": "for example"}}})
	state, err := load(cx)
	if err != nil {
		t.Fatal(err)
	}
	known, err := state.explain(cx, word{"eg"})
	if err != nil || known.Meaning == nil || *known.Meaning != "for example" {
		t.Errorf("explain gave %v, %v", known, err)
	}
	if unknown, err := state.explain(cx, word{"xy"}); err != nil || unknown.Meaning != nil {
		t.Errorf("explain gave %v, %v", unknown, err)
	}
}

func TestAStateNeedsMeanings(t *testing.T) {
	if _, err := load(pcluster.NewContext(pcluster.Info{})); err == nil {
		t.Error("a state was made of no meanings")
	}
}
