//go:build !pcluster_plugin

package pcluster

// Without cmd/build, the runtime has no such functions.

func reseedRuntime() {}

func keepTimers() {}

func stopTimers() {}
