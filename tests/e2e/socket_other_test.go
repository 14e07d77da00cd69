//go:build !linux

package e2e

import (
	"errors"
	"net"
)

func shrinkBacklog(*net.TCPListener) error { return errors.New("needs Linux") }
