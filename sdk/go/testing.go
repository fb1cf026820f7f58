package pcluster

import (
	"fmt"
	"time"

	"pcluster/cbor"
	"pcluster/internal/host"
)

// Info is what the context of a test tells. What is left out is "test", and 1 for the revision and the attempt.
type Info struct {
	Chain, Version, Stage, Topic, ID string
	Revision                         uint64
	Attempt                          int
	// Config is the stage's config.
	Config any
	// Calls answers the calls of the task: it returns the answer, or a *CallError.
	Calls func(name string, request cbor.RawMessage) (answer any, err error)
}

// NewContext returns a context for a unit test. It panics if the config cannot be written as CBOR.
func NewContext(of Info) *Context {
	text := func(given string) string {
		if given == "" {
			return "test"
		}
		return given
	}
	config, err := cbor.Marshal(of.Config)
	if err != nil {
		panic(fmt.Sprintf("pcluster: the config of a test cannot be written: %v", err))
	}
	return &Context{host: &recorder{calls: of.Calls}, info: &info{
		Chain: text(of.Chain), Version: text(of.Version), Revision: max(of.Revision, 1), Stage: text(of.Stage),
		Topic: of.Topic, ID: text(of.ID), Attempt: max(of.Attempt, 1), Config: config,
	}}
}

// Result is what a run of a task has left.
type Result struct {
	// Outputs are the items that the task gave. They count unless it failed.
	Outputs []cbor.RawMessage
	// Topics are the topics of the outputs that have another than the item.
	Topics map[int]string
	// Reason is why the task failed. It is empty if it did not.
	Reason string
	// Permanent is true if no other attempt is made.
	Permanent bool
	// RetryAfter is how long the next attempt waits, if the task has said so.
	RetryAfter time.Duration
}

// Run runs a registered task on an item as a node does, for tests of that. It panics if there is no such task.
func Run(name string, item []byte, of Info) Result {
	t := tasks[name]
	if t == nil {
		panic(fmt.Sprintf("pcluster: there is no task %q", name))
	}
	context, err := cbor.Marshal(NewContext(of).info)
	if err != nil {
		panic(err)
	}
	h := &recorder{calls: of.Calls, context: context}
	status := runTask(h, t, item)
	h.result.Permanent = status == statusFatal
	return h.result
}

// recorder is a host that keeps what a task does.
type recorder struct {
	result  Result
	context []byte
	calls   func(name string, request cbor.RawMessage) (answer any, err error)
}

var _ host.Host = (*recorder)(nil)

func (r *recorder) Emit(item []byte) {
	r.result.Outputs = append(r.result.Outputs, append([]byte{}, item...))
}

func (r *recorder) EmitTo(topic string, item []byte) {
	if r.result.Topics == nil {
		r.result.Topics = map[int]string{}
	}
	r.result.Topics[len(r.result.Outputs)] = topic
	r.Emit(item)
}

func (r *recorder) Fail(reason string) { r.result.Reason = reason }
func (r *recorder) RetryAfter(millis int64) {
	r.result.RetryAfter = time.Duration(millis) * time.Millisecond
}
func (r *recorder) Context() []byte { return r.context }

func (r *recorder) Call(name string, request []byte) ([]byte, bool) {
	var answer any
	var err error = &CallError{Kind: "denied", Message: "the Info of the test has no Calls"}
	if r.calls != nil {
		answer, err = r.calls(name, request)
	}
	if err != nil {
		answer = err
	}
	bytes, failed := cbor.Marshal(answer)
	if failed != nil {
		panic(fmt.Sprintf("pcluster: the answer of a test cannot be written: %v", failed))
	}
	return bytes, err == nil
}
