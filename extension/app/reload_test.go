package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/material"
)

// TestChangedCredentialsAreSeen, and a secret id whose file is gone is no news.
func TestChangedCredentialsAreSeen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	role, id := filepath.Join(dir, "role"), filepath.Join(dir, "id")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(role, "r")
	write(id, "one")
	c := credentials(config.Auth{RoleIDFile: role, SecretFile: id})
	for step, do := range []struct {
		act     func()
		changed bool
	}{
		{func() {}, false},
		{func() { os.Remove(id) }, false}, // taken by a login
		{func() {}, false},
		{func() { write(id, "two") }, true},
		{func() { write(role, "s") }, true},
		{func() {}, false},
	} {
		do.act()
		if changed, err := c.Look(); changed != do.changed || err != nil && !material.Missing(err) {
			t.Errorf("step %d: changed %v, %v", step, changed, err)
		}
	}
	if changed, err := credentials(config.Auth{}).Look(); changed || err != nil {
		t.Errorf("without files: %v, %v", changed, err)
	}
}
