//go:build !linux

package process

// Harden does nothing here.
func Harden() {}
