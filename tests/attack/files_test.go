package attack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// Somebody who may write to the directory above the secret's, which is a
// mistake of whoever set it up, swaps directories and plants links while the
// secret is written again and again. Nothing of it lands elsewhere, and no
// file of another is touched.
func TestSwappedDirectoriesAndLinksGetNoSecret(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	const planted = "planted-in-a-file-"
	o.put("a", planted+"0")
	above, elsewhere := t.TempDir(), t.TempDir()
	dir, aside := filepath.Join(above, "dir"), filepath.Join(above, "aside")
	file, victim := filepath.Join(dir, "secret.json"), filepath.Join(elsewhere, "secret.json")
	harness.Must(t, os.WriteFile(victim, []byte("untouched"), 0o644))
	p := o.start("VAULT_SECRET_PATH="+strings.TrimPrefix(o.data("a"), "/v1/"), "VAULT_SECRET_FILE="+file, "THAW_RECHECK=100ms", "THAW_MAX_AGE=0")
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), planted+"0") {
		t.Fatalf("before the attack: %q, %v", b, err)
	}
	stop := make(chan struct{})
	var attack sync.WaitGroup
	attack.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Any of these may fail: thaw makes the directory where there is none.
			os.Rename(dir, aside)
			os.Symlink(elsewhere, dir)
			os.Remove(dir)
			os.RemoveAll(dir)
			os.Rename(aside, dir)
			os.Remove(file)
			os.Symlink(victim, file)
		}
	})
	for n := range 60 {
		o.put("a", fmt.Sprint(planted, n+1))
		harness.Pause(t.Context(), 50*time.Millisecond)
	}
	close(stop)
	attack.Wait()
	if b, err := os.ReadFile(victim); err != nil || string(b) != "untouched" {
		t.Errorf("the file of another holds %q, %v", b, err)
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 1 {
		t.Errorf("left elsewhere: %v, %v", left, err)
	}
	// It goes on as before.
	os.Remove(file)
	os.MkdirAll(dir, 0o700)
	last := planted + "last"
	o.put("a", last)
	harness.Eventually(t, patience, "the file follows its secret again", func() bool {
		b, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Contains(string(b), last)
	})
	harness.Must(t, filepath.WalkDir(above, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	}))
	if text := p.proc.Output(); strings.Contains(text, planted) {
		t.Error("the log holds the secret")
	}
}
