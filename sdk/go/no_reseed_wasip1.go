//go:build !pcluster_reseed

package pcluster

// reseedRuntime does nothing in a plugin without a state: each of its instances starts by itself.
func reseedRuntime() {}
