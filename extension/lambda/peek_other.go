//go:build !linux

package lambda

import "time"

// canPeek: Lambda is Linux; elsewhere Pending knows the flag alone.
const canPeek = false

func readable(uintptr) bool { return true }

func await(uintptr, time.Duration) bool { return false }
