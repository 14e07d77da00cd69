package lambdaapi

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// processAttributes ties the child's life to ours and keeps a terminal's signals
// from it: Lambda sends an extension SIGKILL and no other signal.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// allStopped reads the state of each thread (proc(5), /proc/pid/task/tid/stat,
// third field: T is stopped, Z and X have ended).
func allStopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is sound
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // that thread has ended
		}
		// The second field is the name in brackets, which may hold anything.
		i := bytes.LastIndexByte(text, ')')
		if i < 0 || i+2 >= len(text) || !bytes.ContainsRune([]byte("TZX"), rune(text[i+2])) {
			return false
		}
	}
	return len(stats) > 0
}
