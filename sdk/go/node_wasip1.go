package pcluster

import (
	"context"
	"log/slog"
	"strings"
	"unsafe"

	"pcluster/internal/host"
)

// item is the memory of the item that the host hands over.
var item []byte

//go:wasmexport pcluster_alloc
func allocate(size uint32) unsafe.Pointer {
	if int(size) > cap(item) || cap(item) > keptBytes {
		item = make([]byte, size)
	}
	item = item[:size]
	return unsafe.Pointer(unsafe.SliceData(item))
}

// RunItem runs a task on the item that the host has handed over. The code that cmd/build writes calls it.
func RunItem(name string) int32 {
	reseed()
	return runItem(name)
}

// RunItems runs a task on one item after the other. The code that cmd/build writes calls it.
func RunItems(name string) int32 {
	reseed()
	status, more := int32(statusDone), true
	for {
		if cap(item) > keptBytes {
			item = nil
		}
		if item, more = host.Next(status, item); !more {
			return statusDone
		}
		status = runItem(name)
	}
}

// runItem runs a task on the item, and leaves none of its timers to the next.
func runItem(name string) int32 {
	keepTimers()
	defer stopTimers()
	return runTask(host.Node{}, tasks[name], item)
}

// LoadState makes the state of a task. The code that cmd/build writes calls it.
func LoadState(name string) int32 {
	isLoaded = true
	return loadTask(host.Node{}, tasks[name])
}

// isLoaded is true in an instance that may be one of many from one snapshot.
var isLoaded bool

// reseed seeds the generators of random numbers anew in such an instance.
func reseed() {
	if isLoaded {
		isLoaded = false
		reseedRuntime()
	}
}

func init() {
	slog.SetDefault(slog.New(&handler{}))
}

// handler writes the lines of log and slog to the log of the chain.
type handler struct {
	groups string
	fields string
}

func (h *handler) Enabled(context.Context, slog.Level) bool {
	return true
}

func (h *handler) Handle(_ context.Context, record slog.Record) error {
	var line strings.Builder
	line.WriteString(record.Message)
	line.WriteString(h.fields)
	record.Attrs(func(field slog.Attr) bool {
		writeField(&line, h.groups, field)
		return true
	})
	host.Log(levelOf(record.Level), line.String())
	return nil
}

func (h *handler) WithAttrs(fields []slog.Attr) slog.Handler {
	var line strings.Builder
	line.WriteString(h.fields)
	for _, field := range fields {
		writeField(&line, h.groups, field)
	}
	return &handler{h.groups, line.String()}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.groups + name + ".", h.fields}
}

func writeField(line *strings.Builder, groups string, field slog.Attr) {
	value := field.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		for _, inner := range value.Group() {
			writeField(line, groups+field.Key+".", inner)
		}
		return
	}
	line.WriteString(" " + groups + field.Key + "=" + value.String())
}

// levelOf returns the level of the host.
func levelOf(level slog.Level) int32 {
	switch {
	case level >= slog.LevelError:
		return 1
	case level >= slog.LevelWarn:
		return 2
	case level >= slog.LevelInfo:
		return 3
	case level >= slog.LevelDebug:
		return 4
	}
	return 5
}
