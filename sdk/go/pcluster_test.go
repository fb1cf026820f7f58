package pcluster

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"pcluster/cbor"
)

type order struct {
	Article string  `cbor:"article"`
	Price   float64 `cbor:"price"`
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	item, err := cbor.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return item
}

// texts returns the outputs of a task that gives texts.
func texts(t *testing.T, result Result) []string {
	t.Helper()
	var all []string
	for _, output := range result.Outputs {
		var text string
		if err := cbor.Unmarshal(output, &text); err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}

func TestMap(t *testing.T) {
	Map("map", func(cx *Context, o order) (string, error) {
		if o.Price == 0 {
			return "", Drop
		}
		return fmt.Sprintf("%s of %s", o.Article, cx.Chain()), nil
	})
	if got := texts(t, Run("map", marshal(t, order{"tea", 2}), Info{Chain: "shop"})); !slices.Equal(got, []string{"tea of shop"}) {
		t.Errorf("it gives %q", got)
	}
	if got := Run("map", marshal(t, order{"air", 0}), Info{}); len(got.Outputs) > 0 || got.Reason != "" {
		t.Errorf("a dropped item leaves %+v", got)
	}
	got := Run("map", marshal(t, map[string]any{"article": 5}), Info{})
	if want := "the item is not of type pcluster.order: article: 5 does not fit string"; got.Reason != want || !got.Permanent {
		t.Errorf("another type fails with %q, want %q", got.Reason, want)
	}
}

func TestGenerator(t *testing.T) {
	Generator("generator", func(cx *Context, n int) iter.Seq2[WithTopic[string], error] {
		return func(yield func(WithTopic[string], error) bool) {
			for i := range n {
				if !yield(WithTopic[string]{fmt.Sprint("t", i), "x"}, nil) {
					return
				}
			}
			yield(WithTopic[string]{}, io.ErrUnexpectedEOF)
		}
	})
	got := Run("generator", marshal(t, 2), Info{})
	if len(got.Outputs) != 2 || got.Topics[1] != "t1" || got.Reason != "unexpected EOF" || got.Permanent {
		t.Errorf("it leaves %+v", got)
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("no answer")
	for _, each := range []struct {
		err    error
		status int32
		after  time.Duration
	}{
		{nil, statusDone, 0},
		{fmt.Errorf("wrapped: %w", Drop), statusDone, 0},
		{cause, statusFailed, 0},
		{Permanent(cause), statusFatal, 0},
		{fmt.Errorf("wrapped: %w", Permanent(cause)), statusFatal, 0},
		{Transient(Permanent(cause), time.Second), statusFailed, time.Second},
		{&CallError{Transient: true, RetryAfter: 20}, statusFailed, 20 * time.Millisecond},
		{fmt.Errorf("wrapped: %w", &CallError{}), statusFatal, 0},
		{Transient(&CallError{}, 0), statusFailed, 0},
	} {
		if status, after := judge(each.err); status != each.status || after != each.after {
			t.Errorf("%v is %d after %v", each.err, status, after)
		}
	}
	if Permanent(nil) != nil || Transient(nil, 0) != nil {
		t.Error("no error became one")
	}
	if !errors.Is(Permanent(cause), cause) {
		t.Error("the cause is hidden")
	}
}

func TestPanic(t *testing.T) {
	Sink("panic", func(cx *Context, n int) error {
		var none []int
		return fmt.Errorf("%d", none[n])
	})
	got := Run("panic", marshal(t, 3), Info{})
	if !strings.HasPrefix(got.Reason, "panic: runtime error: index out of range [3] with length 0") || got.Permanent {
		t.Errorf("it leaves %+v", got)
	}
}

func TestLeftGoroutines(t *testing.T) {
	end := make(chan bool)
	Sink("goroutine", func(cx *Context, item any) error {
		go func() { <-end }()
		return nil
	})
	got := Run("goroutine", marshal(t, 3), Info{})
	if want := "the task returned while 1 of its goroutines still run; wait for them first"; got.Reason != want {
		t.Errorf("it leaves %+v", got)
	}
	close(end)
}

func TestState(t *testing.T) {
	made := 0
	load := func(cx *Context) (*int, error) {
		var config struct{ From int }
		if err := cx.Config(&config); err != nil {
			return nil, err
		}
		if made++; made == 1 {
			return nil, errors.New("not yet")
		}
		return &config.From, nil
	}
	SinkWith("state", load, func(count *int, cx *Context, item any) error {
		*count++
		return fmt.Errorf("%d", *count)
	})
	info := Info{Config: map[string]int{"from": 5}}
	for _, want := range []string{"cannot be initialized: not yet", "6", "7"} {
		if got := Run("state", marshal(t, nil), info); got.Reason != want {
			t.Errorf("it leaves %+v, want %s", got, want)
		}
	}
}

func TestConfig(t *testing.T) {
	config := struct{ Word string }{"default"}
	if err := NewContext(Info{}).Config(&config); err != nil || config.Word != "default" {
		t.Errorf("without a config: %v, %v", config, err)
	}
	err := NewContext(Info{Config: map[string]any{"word": 5}}).Config(&config)
	if status, _ := judge(err); status != statusFatal || !strings.Contains(err.Error(), "Word: 5 does not fit string") {
		t.Errorf("a config of another type: %v", err)
	}
}

func TestCalls(t *testing.T) {
	cx := NewContext(Info{Calls: func(name string, request cbor.RawMessage) (any, error) {
		if name != "kv.get" {
			return nil, &CallError{Kind: "conflict", Message: "taken", Transient: true}
		}
		return map[string]any{"value": []byte("here"), "revision": 3}, nil
	}})
	var answer struct{ Value []byte }
	if err := cx.Call("kv.get", map[string]string{"bucket": "b", "key": "k"}, &answer); err != nil || string(answer.Value) != "here" {
		t.Errorf("it answers %q, %v", answer.Value, err)
	}
	var failure *CallError
	if err := cx.Call("kv.put", nil, nil); !errors.As(err, &failure) || failure.Kind != "conflict" || err.Error() != "kv.put: taken" {
		t.Errorf("it fails with %v", err)
	}
	if err := NewContext(Info{}).Call("http", nil, nil); !errors.As(err, &failure) || failure.Kind != "denied" {
		t.Errorf("without Calls it fails with %v", err)
	}
}
