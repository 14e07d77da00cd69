//go:build !linux

package lambda

import "time"

// canPeek: Lambda is Linux; elsewhere Pending knows the flag alone.
const canPeek = false

func await(uintptr, time.Duration) bool { return false }
