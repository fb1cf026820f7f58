package pcluster

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
)

// The statuses that a task returns to the host.
const (
	statusDone = iota
	statusFailed
	statusFatal
)

// verdict is an error that says whether to try again.
type verdict struct {
	error
	fatal bool
	after time.Duration
}

func (v *verdict) Unwrap() error {
	return v.error
}

// Permanent returns an error that every attempt would meet. Its item becomes a dead letter at once. Without it, an error is one
// that another attempt may not meet.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &verdict{error: err, fatal: true}
}

// Transient returns an error that another attempt may not meet. The attempt waits this long, at most an hour, in place of the
// stage's back-off, and as the back-off says if the time is zero.
func Transient(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &verdict{error: err, after: after}
}

// CallError is the failure of a call to the host. An item that fails with it is tried again if the call is transient.
type CallError struct {
	// Call is the name of the call.
	Call string `cbor:"-"`
	// Kind is "denied", "invalid", "not_found", "timeout", "too_large", "unavailable" or "conflict".
	Kind      string `cbor:"kind"`
	Message   string `cbor:"message"`
	Transient bool   `cbor:"transient"`
	// RetryAfter is how long to wait, in milliseconds, if that is known.
	RetryAfter int64 `cbor:"retry_after_ms"`
}

func (e *CallError) Error() string {
	return e.Call + ": " + e.Message
}

// judge returns what an error means for the item.
func judge(err error) (status int32, after time.Duration) {
	var said *verdict
	var call *CallError
	switch {
	case err == nil || errors.Is(err, Drop):
		return statusDone, 0
	case errors.As(err, &said) && said.fatal:
		return statusFatal, 0
	case said != nil:
		return statusFailed, said.after
	case errors.As(err, &call) && !call.Transient:
		return statusFatal, 0
	case call != nil:
		return statusFailed, time.Duration(call.RetryAfter) * time.Millisecond
	}
	return statusFailed, 0
}

// panicked returns the error of a panic, with the lines of the author's code that led to it.
func panicked(value any) error {
	var text strings.Builder
	fmt.Fprintf(&text, "panic: %v", value)
	calls := make([]uintptr, 64)
	frames := runtime.CallersFrames(calls[:runtime.Callers(0, calls)])
	for shown := 0; shown < 20; {
		frame, more := frames.Next()
		if !isOwn(frame.Function) {
			fmt.Fprintf(&text, "\n    at %s (%s:%d)", frame.Function, frame.File, frame.Line)
			shown++
		}
		if !more {
			break
		}
	}
	return errors.New(text.String())
}

// isOwn returns true for a function of the runtime or of this package.
func isOwn(function string) bool {
	return function == "" || strings.HasPrefix(function, "runtime.") || strings.HasPrefix(function, "pcluster.")
}
