// Package host names the functions of the node that runs a task.
package host

// Host is the node that runs a task, or a test.
type Host interface {
	// Emit gives an output.
	Emit(item []byte)
	// EmitTo gives an output with another topic than the item's.
	EmitTo(topic string, item []byte)
	// Fail sets the reason of a failure.
	Fail(reason string)
	// RetryAfter sets how long the next attempt waits.
	RetryAfter(millis int64)
	// Context returns the context of the item.
	Context() []byte
	// Call calls a function. It returns the answer and true, or the failure and false.
	Call(name string, request []byte) (answer []byte, ok bool)
}
