package lambda

import "syscall"

// canPeek says that readable looks at the socket.
const canPeek = true

// readable reports whether a read of the socket would return at once: bytes,
// the end of the stream, or an error. It takes nothing and never blocks.
func readable(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return err != syscall.EAGAIN
		}
	}
}
