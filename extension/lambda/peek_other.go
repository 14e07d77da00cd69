//go:build !linux

package lambda

// canPeek: Lambda is Linux; elsewhere Pending knows the flag alone.
const canPeek = false

func readable(uintptr) bool { return true }
