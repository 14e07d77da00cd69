package lambda

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// room is a mount and a network namespace with nothing but the loopback in it,
// as `unshare -mn` makes one (unshare(2); root only). So each emulator has its
// own /opt, /tmp and 127.0.0.1:8200, and reaches no network. It is a thread that
// is never given back: both namespaces end with it and with the processes that
// were started from it.
type room struct {
	calls chan func()
}

// enter makes a room in which opt is mounted at /opt. The error of a machine that allows no
// namespaces wraps errNoRoom.
func enter(opt string) (*room, error) {
	r := &room{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := isolate(opt)
		ready <- err
		if err != nil {
			return
		}
		for call := range r.calls {
			call()
		}
	}()
	return r, <-ready
}

func isolate(opt string) error {
	if err := syscall.Unshare(syscall.CLONE_NEWNS | syscall.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%w: unshare: %w", errNoRoom, err)
	}
	mounts := []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{opt, "/opt", "", syscall.MS_BIND, ""},
		{"tmpfs", "/var", "tmpfs", 0, "mode=755"}, // for /var/task, which the emulator wants
		{"tmpfs", "/tmp", "tmpfs", 0, "mode=1777"},
	}
	for _, m := range mounts {
		if err := syscall.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("%w: mount %s: %w", errNoRoom, m.target, err)
		}
	}
	if err := os.Mkdir("/var/task", 0o755); err != nil {
		return err
	}
	return loopbackUp()
}

// loopbackUp sets IFF_UP of lo (netdevice(7)).
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	defer syscall.Close(fd)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP}
	copy(request.name[:], "lo")
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("%w: bring up the loopback: %w", errNoRoom, errno)
	}
	return nil
}

// do runs call in the room and waits for it.
func (r *room) do(call func()) {
	done := make(chan struct{})
	r.calls <- func() {
		defer close(done)
		call()
	}
	<-done
}

// leave ends the room.
func (r *room) leave() { close(r.calls) }

// oneProcessor binds what is started in the room from now on to one processor
// (sched_setaffinity(2)).
func (r *room) oneProcessor() (err error) {
	r.do(func() {
		mask := [128]byte{1}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, uintptr(len(mask)), uintptr(unsafe.Pointer(&mask))); errno != 0 {
			err = fmt.Errorf("bind to one processor: %w", errno)
		}
	})
	return err
}

// listen opens a listener in the room. A socket stays in the namespace where it was made,
// whichever thread uses it.
func (r *room) listen(addr string) (l net.Listener, err error) {
	r.do(func() { l, err = net.Listen("tcp", addr) })
	return l, err
}

// dial connects in the room; addr is an address of the loopback.
func (r *room) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	r.do(func() { conn, err = new(net.Dialer).DialContext(ctx, network, addr) })
	return conn, err
}
