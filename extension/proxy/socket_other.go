//go:build !linux

package proxy

import "syscall"

// ownersOnly does nothing: elsewhere the mode is set once the socket has a name.
func ownersOnly(string, string, syscall.RawConn) error { return nil }
