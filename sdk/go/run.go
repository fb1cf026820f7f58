package pcluster

import (
	"fmt"
	"runtime"

	"pcluster/internal/host"
)

// buffers keeps the memory of outputs from one item to the next.
var buffer []byte

// The largest buffer that is kept.
const keptBytes = 1 << 20

// runTask runs a task on an item, and tells the host how it ended. It returns the status.
func runTask(h host.Host, t *task, item []byte) int32 {
	r := &run{host: h, cx: &Context{host: h}, buffer: buffer[:0]}
	before := runtime.NumGoroutine()
	err := guarded(func() error {
		if t.load != nil {
			if err := t.load(r.cx); err != nil {
				return err
			}
		}
		return t.run(r, item)
	})
	if buffer = r.buffer; cap(buffer) > keptBytes {
		buffer = nil
	}
	if left := leftOver(before); left > 0 && err == nil {
		err = fmt.Errorf("the task returned while %d of its goroutines still run; wait for them first", left)
	}
	return conclude(h, err)
}

// loadTask makes the state of a task, if it has one, and tells the host how that ended. It returns the status.
func loadTask(h host.Host, t *task) int32 {
	return conclude(h, guarded(func() error {
		if t.load == nil {
			return nil
		}
		return t.load(&Context{host: h})
	}))
}

// guarded calls a function, and returns its panic as an error.
func guarded(call func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = panicked(value)
		}
	}()
	return call()
}

// leftOver returns how many goroutines a task has left, after they had an opportunity to end.
func leftOver(before int) int {
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return 0
		}
		runtime.Gosched()
	}
	return runtime.NumGoroutine() - before
}

// conclude tells the host why an item failed. It returns the status.
func conclude(h host.Host, err error) int32 {
	status, after := judge(err)
	if status == statusDone {
		return statusDone
	}
	h.Fail(err.Error())
	if after > 0 {
		h.RetryAfter(after.Milliseconds())
	}
	return status
}
