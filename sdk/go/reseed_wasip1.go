//go:build pcluster_reseed

package pcluster

import _ "unsafe"

// reseedRuntime seeds the runtime's generator, which math/rand and math/rand/v2 draw from. cmd/build adds it to the runtime.
//
//go:linkname reseedRuntime
func reseedRuntime()
