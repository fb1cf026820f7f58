// Package pcluster makes functions the tasks of a pcluster plugin.
//
// A task is a function that takes an item and returns what becomes of it. The program's main registers it:
//
//	package main
//
//	import "pcluster"
//
//	type Person struct {
//		Name string `cbor:"name"`
//	}
//
//	func greet(cx *pcluster.Context, person Person) (string, error) {
//		return "Hello, " + person.Name, nil
//	}
//
//	func main() {
//		pcluster.Map("greet", greet)
//	}
//
// Build the plugin with go run pcluster/cmd/build. It finds the tasks in the source: their names are literals, and they are
// registered in package main. In a unit test, a task is a function as any other; [NewContext] makes its context.
//
// An item has the types of package [pcluster/cbor]. A task that needs nothing of the item's type takes a cbor.RawMessage, or any.
//
// The log and log/slog packages write to the log of the chain, each line with its level. The numbers of math/rand differ in each
// instance; those of a generator that a state keeps are the same in all instances that start from it.
package pcluster

import (
	"errors"
	"fmt"
	"iter"
	"reflect"

	"pcluster/cbor"
	"pcluster/internal/host"
)

// Drop is the error of a task that drops its item. It is no failure.
var Drop = errors.New("the item is dropped")

// Option describes a task.
type Option struct{}

// Calls says which functions of the host a task calls: "http", "kv", "objects", "publish" or "secrets". A call of a group that
// is not listed is denied. The groups must be literals.
func Calls(groups ...string) Option {
	return Option{}
}

// WithTopic is an output with another topic than the item's, or with none if it is empty.
type WithTopic[Out any] struct {
	Topic string
	Value Out
}

func (w WithTopic[Out]) parts() (topic string, value any) {
	return w.Topic, w.Value
}

// task is a registered task.
type task struct {
	load func(*Context) error
	run  func(*run, []byte) error
}

// tasks has the registered tasks by name.
var tasks = map[string]*task{}

func register(name string, t *task) {
	if _, taken := tasks[name]; taken {
		panic(fmt.Sprintf("pcluster: two tasks have the name %q", name))
	}
	tasks[name] = t
}

// Map registers a task that turns an item into another, or drops it with [Drop].
func Map[In, Out any](name string, f func(*Context, In) (Out, error), options ...Option) {
	register(name, &task{run: mapping(f)})
}

// Generator registers a task that turns an item into any number of items. After an error, none of them count.
func Generator[In, Out any](name string, f func(*Context, In) iter.Seq2[Out, error], options ...Option) {
	register(name, &task{run: generator(f)})
}

// Sink registers a task with which an item ends.
func Sink[In any](name string, f func(*Context, In) error, options ...Option) {
	register(name, &task{run: sink(f)})
}

// MapWith registers a task as [Map] does, with a state that load makes once. A node keeps the memory that load leaves, and starts
// every instance from a copy.
func MapWith[State, In, Out any](name string, load func(*Context) (State, error),
	f func(State, *Context, In) (Out, error), options ...Option) {
	s := &state[State]{load: load}
	register(name, s.task(mapping(func(cx *Context, item In) (Out, error) { return f(s.made, cx, item) })))
}

// GeneratorWith registers a task as [Generator] does, with a state as [MapWith] does.
func GeneratorWith[State, In, Out any](name string, load func(*Context) (State, error),
	f func(State, *Context, In) iter.Seq2[Out, error], options ...Option) {
	s := &state[State]{load: load}
	register(name, s.task(generator(func(cx *Context, item In) iter.Seq2[Out, error] { return f(s.made, cx, item) })))
}

// SinkWith registers a task as [Sink] does, with a state as [MapWith] does.
func SinkWith[State, In any](name string, load func(*Context) (State, error),
	f func(State, *Context, In) error, options ...Option) {
	s := &state[State]{load: load}
	register(name, s.task(sink(func(cx *Context, item In) error { return f(s.made, cx, item) })))
}

// state is the state of a task.
type state[State any] struct {
	load   func(*Context) (State, error)
	made   State
	isMade bool
}

// task returns a task that makes the state before its first item.
func (s *state[State]) task(f func(*run, []byte) error) *task {
	load := func(cx *Context) error {
		if s.isMade {
			return nil
		}
		made, err := s.load(cx)
		if err != nil {
			return fmt.Errorf("cannot be initialized: %w", err)
		}
		s.made, s.isMade = made, true
		return nil
	}
	return &task{load: load, run: f}
}

func mapping[In, Out any](f func(*Context, In) (Out, error)) func(*run, []byte) error {
	return func(r *run, item []byte) error {
		in, err := decode[In](item)
		if err != nil {
			return err
		}
		out, err := f(r.cx, in)
		if err != nil {
			return err
		}
		return r.emit(out)
	}
}

func generator[In, Out any](f func(*Context, In) iter.Seq2[Out, error]) func(*run, []byte) error {
	return func(r *run, item []byte) error {
		in, err := decode[In](item)
		if err != nil {
			return err
		}
		for out, err := range f(r.cx, in) {
			if err != nil {
				return err
			}
			if err := r.emit(out); err != nil {
				return err
			}
		}
		return nil
	}
}

func sink[In any](f func(*Context, In) error) func(*run, []byte) error {
	return func(r *run, item []byte) error {
		in, err := decode[In](item)
		if err != nil {
			return err
		}
		return f(r.cx, in)
	}
}

func decode[In any](item []byte) (in In, err error) {
	if err := cbor.Unmarshal(item, &in); err != nil {
		return in, Permanent(fmt.Errorf("the item is not of type %s: %w", reflect.TypeFor[In](), err))
	}
	return in, nil
}

// emit gives an output.
func (r *run) emit(output any) error {
	topical, hasTopic := output.(interface{ parts() (string, any) })
	topic := ""
	if hasTopic {
		topic, output = topical.parts()
	}
	item, err := cbor.Append(r.buffer[:0], output)
	if err != nil {
		return Permanent(fmt.Errorf("the output cannot be written: %w", err))
	}
	r.buffer = item
	if hasTopic {
		r.host.EmitTo(topic, item)
	} else {
		r.host.Emit(item)
	}
	return nil
}

// run is the run of a task on one item.
type run struct {
	host   host.Host
	cx     *Context
	buffer []byte
}
