// Package material keeps what is made of files that may change while the process
// lives: CA certificates, key pairs, credentials.
//
// Get makes it at the first call. Look reads the files again; if they hold
// something else, it is made anew. What cannot be made of new files leaves the old
// in use, and is an error once for what they hold, however often Look is called.
package material

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

// Kept is what was made of files. It is safe for concurrent use.
type Kept[T any] struct {
	files   []string // or folders
	load    func() (T, error)
	changes atomic.Uint64
	held    atomic.Pointer[T] // written under mu; nil: nothing was made yet

	mu  sync.Mutex        // guards the fields below
	sum [sha256.Size]byte // of what held was made of
	bad [sha256.Size]byte // of what could not be used; that was told
}

// Keep returns what load makes of files or folders. Empty names are left out. It
// reads nothing.
func Keep[T any](load func() (T, error), files ...string) *Kept[T] {
	return &Kept[T]{load: load, files: slices.DeleteFunc(slices.Clone(files), func(f string) bool { return f == "" })}
}

// Get returns what is in use. An error is not kept: a file that is missing now may
// be there at the next call.
func (k *Kept[T]) Get() (T, error) {
	if held := k.held.Load(); held != nil {
		return *held, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if held := k.held.Load(); held != nil {
		return *held, nil
	}
	sum, _ := digest(k.files)
	held, err := k.load()
	if err == nil {
		k.sum = sum
		k.held.Store(&held)
	}
	return held, err
}

// Peek returns what is in use; nil: nothing was made yet.
func (k *Kept[T]) Peek() *T { return k.held.Load() }

// Changes counts how often something new was made.
func (k *Kept[T]) Changes() uint64 { return k.changes.Load() }

// Look reads the files again, unless Get never did, and reports whether something
// new is in use.
func (k *Kept[T]) Look() (changed bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held.Load() == nil || len(k.files) == 0 {
		return false, nil
	}
	sum, err := digest(k.files)
	if sum == k.sum || sum == k.bad {
		k.bad = sum
		return false, nil
	}
	if err == nil {
		var held T
		if held, err = k.load(); err == nil {
			k.sum = sum
			k.held.Store(&held)
			k.changes.Add(1)
			return true, nil
		}
		if after, _ := digest(k.files); after != sum { // they were being written: the next look has them
			return false, nil
		}
	}
	k.bad = sum
	return false, err
}

// digest is that of the contents of files, and of the regular files in folders, links
// followed. What cannot be read counts as such.
func digest(files []string) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, file := range files {
		text, fault := os.ReadFile(file)
		if info, e := os.Stat(file); e == nil && info.IsDir() {
			var all []string
			entries, e := os.ReadDir(file)
			for _, entry := range entries {
				path := filepath.Join(file, entry.Name())
				if info, e := os.Stat(path); e == nil && info.Mode().IsRegular() {
					all = append(all, path)
				}
			}
			inside, _ := digest(all)
			text, fault = inside[:], e
		}
		if fault != nil {
			text = []byte(fault.Error())
		}
		err = errors.Join(err, fault)
		part := sha256.Sum256(text)
		h.Write(part[:])
	}
	return [sha256.Size]byte(h.Sum(nil)), err
}

// Missing reports whether an error of Look is that a file is not there.
func Missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// CAs reads a file of CA certificates in PEM form. Errors call it what and, where it
// can be read, by its path.
func CAs(what, path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read %s %s: it holds no certificate in PEM form", what, path)
	}
	return pool, nil
}
