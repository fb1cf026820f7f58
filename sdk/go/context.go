package pcluster

import (
	"fmt"

	"pcluster/cbor"
	"pcluster/internal/host"
)

// Context tells a task about its item and its stage. It must not be used after the task has returned.
type Context struct {
	host host.Host
	info *info
}

// info is the context as the host writes it.
type info struct {
	Chain    string          `cbor:"chain"`
	Version  string          `cbor:"version"`
	Revision uint64          `cbor:"revision"`
	Stage    string          `cbor:"stage"`
	Topic    string          `cbor:"topic"`
	ID       string          `cbor:"id"`
	Attempt  int             `cbor:"attempt"`
	Config   cbor.RawMessage `cbor:"config"`
}

// read returns the context, which it asks the host for once.
func (cx *Context) read() *info {
	if cx.info == nil {
		cx.info = &info{}
		if err := cbor.Unmarshal(cx.host.Context(), cx.info); err != nil {
			panic(fmt.Sprintf("the context cannot be read: %v", err))
		}
	}
	return cx.info
}

// Chain returns the name of the chain.
func (cx *Context) Chain() string { return cx.read().Chain }

// Version returns the version of the chain as its author wrote it.
func (cx *Context) Version() string { return cx.read().Version }

// Revision returns the number of the chain's revision.
func (cx *Context) Revision() uint64 { return cx.read().Revision }

// Stage returns the name of the stage.
func (cx *Context) Stage() string { return cx.read().Stage }

// Topic returns the topic of the item. It is empty if the item has none.
func (cx *Context) Topic() string { return cx.read().Topic }

// ID returns the id of the item, which is the same at every attempt. It is empty while a state is made.
func (cx *Context) ID() string { return cx.read().ID }

// Attempt returns the number of the attempt: 1 for the first on this item. It is 0 while a state is made.
func (cx *Context) Attempt() int { return cx.read().Attempt }

// Config sets a value from the stage's config, and leaves it as it is if the stage has none. The error is permanent.
func (cx *Context) Config(config any) error {
	if raw := cx.read().Config; len(raw) > 0 {
		if err := cbor.Unmarshal(raw, config); err != nil {
			return Permanent(fmt.Errorf("the stage's config does not fit the task: %w", err))
		}
	}
	return nil
}

// Call calls a function of the host, as "kv.get", with a request that becomes a map, and sets the answer. The names and maps are
// those of the plugin ABI. The task must be registered with [Calls]. A call that fails returns a [*CallError].
func (cx *Context) Call(name string, request, answer any) error {
	bytes, err := cbor.Marshal(request)
	if err != nil {
		return fmt.Errorf("%s: the request cannot be written: %w", name, err)
	}
	bytes, ok := cx.host.Call(name, bytes)
	if !ok {
		failure := &CallError{}
		if err := cbor.Unmarshal(bytes, failure); err != nil {
			return fmt.Errorf("%s: the failure cannot be read: %w", name, err)
		}
		failure.Call = name
		return failure
	}
	if answer == nil {
		return nil
	}
	if err := cbor.Unmarshal(bytes, answer); err != nil {
		return fmt.Errorf("%s: the answer does not fit: %w", name, err)
	}
	return nil
}
