//go:build !linux

package vault

import (
	"net"
	"time"
)

// setUserTimeout does nothing: the limit is Linux's own.
func setUserTimeout(net.Conn, time.Duration) {}
