package host

import "unsafe"

// Node is the node that runs a plugin.
type Node struct{}

//go:wasmimport pcluster_v1 emit
func emit(item unsafe.Pointer, size uint32)

//go:wasmimport pcluster_v1 emit_to
func emitTo(topic unsafe.Pointer, length uint32, item unsafe.Pointer, size uint32)

//go:wasmimport pcluster_v1 fail
func fail(reason unsafe.Pointer, length uint32)

//go:wasmimport pcluster_v1 log
func log(level int32, line unsafe.Pointer, length uint32)

//go:wasmimport pcluster_v1 context_len
func contextLen() int32

//go:wasmimport pcluster_v1 context_read
func contextRead(to unsafe.Pointer)

//go:wasmimport pcluster_v1 next
func next(status int32) int32

//go:wasmimport pcluster_v1 item_read
func itemRead(to unsafe.Pointer)

//go:wasmimport pcluster_v1 call
func call(name unsafe.Pointer, length uint32, request unsafe.Pointer, size uint32) int32

//go:wasmimport pcluster_v1 call_read
func callRead(to unsafe.Pointer)

//go:wasmimport pcluster_v1 retry_after
func retryAfter(millis int64)

func bytes(of []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(of)), uint32(len(of))
}

func text(of string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(of)), uint32(len(of))
}

// Emit gives an output.
func (Node) Emit(item []byte) {
	emit(bytes(item))
}

// EmitTo gives an output with another topic than the item's.
func (Node) EmitTo(topic string, item []byte) {
	name, length := text(topic)
	pointer, size := bytes(item)
	emitTo(name, length, pointer, size)
}

// Fail sets the reason of a failure.
func (Node) Fail(reason string) {
	fail(text(reason))
}

// RetryAfter sets how long the next attempt waits.
func (Node) RetryAfter(millis int64) {
	retryAfter(millis)
}

// Context returns the context of the item.
func (Node) Context() []byte {
	context := make([]byte, contextLen())
	contextRead(unsafe.Pointer(unsafe.SliceData(context)))
	return context
}

// Call calls a function. It returns the answer and true, or the failure and false.
func (Node) Call(name string, request []byte) (answer []byte, ok bool) {
	pointer, length := text(name)
	from, size := bytes(request)
	result := call(pointer, length, from, size)
	if ok = result >= 0; !ok {
		result = ^result
	}
	answer = make([]byte, result)
	callRead(unsafe.Pointer(unsafe.SliceData(answer)))
	return answer, ok
}

// Log writes a log line.
func Log(level int32, line string) {
	pointer, length := text(line)
	log(level, pointer, length)
}

// Next ends an item with a status and begins the next, which it returns in a buffer that it may take a part of. It returns false
// if there is none.
func Next(status int32, buffer []byte) ([]byte, bool) {
	size := next(status)
	if size < 0 {
		return nil, false
	}
	if int(size) > cap(buffer) {
		buffer = make([]byte, size)
	}
	buffer = buffer[:size]
	itemRead(unsafe.Pointer(unsafe.SliceData(buffer)))
	return buffer, true
}
