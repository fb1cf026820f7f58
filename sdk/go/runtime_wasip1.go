//go:build pcluster_plugin

package pcluster

import _ "unsafe"

// What the runtime does for plugins: cmd/build adds these functions to it.

// reseedRuntime seeds the runtime's generator, which math/rand and math/rand/v2 draw from.
//
//go:linkname reseedRuntime
func reseedRuntime()

// keepTimers remembers the pending timers of time.AfterFunc, which are not those of an item.
//
//go:linkname keepTimers
func keepTimers()

// stopTimers stops all other timers of time.AfterFunc.
//
//go:linkname stopTimers
func stopTimers()
