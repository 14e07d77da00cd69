package lambda

import (
	"syscall"
	"time"
	"unsafe"
)

// canPeek says that readable looks at the socket.
const canPeek = true

// readable reports whether a read of the socket would return at once: bytes,
// the end of the stream, or an error. It takes nothing and never blocks. poll(2)
// would not do: what comes while another call holds the socket lies in its backlog,
// which a receive takes in first, and poll does not see.
func readable(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return err != syscall.EAGAIN
		}
	}
}

// pollIn is POLLIN of poll(2).
const pollIn = 1

// await waits until a read of the socket would return at once, at most d
// (ppoll(2)): the kernel wakes us, nothing spins, and the processor is free
// for whoever has still to write.
func await(fd uintptr, d time.Duration) bool {
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: pollIn}
	limit := syscall.NsecToTimespec(int64(d))
	// The error is a signal's or none: the answer is in revents.
	_, _, _ = syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return poll.revents != 0
}
