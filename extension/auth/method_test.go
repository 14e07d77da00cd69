package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

func TestAppRoleFilesAreReadAndTheSecretIDIsRemovedAfterTheLogin(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) {
		o.Auth = config.Auth{Method: config.AuthAppRole, RoleIDFile: "/role", SecretFile: "/secret", Mount: "auth/approle"}
	})
	s.disk.write("/role", " "+s.vault.roleID+"\n")
	s.disk.write("/secret", "wrong")
	if _, err := s.Token(t.Context()); err == nil {
		t.Fatal("a wrong secret id logs in")
	}
	if _, err := s.disk.read("/secret"); err != nil {
		t.Error("the file was removed although the login failed")
	}
	s.disk.write("/secret", s.vault.secretID+"\n")
	s.clock.move(time.Second)
	s.token(t)
	if _, err := s.disk.read("/secret"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the secret id's file is still there")
	}
	s.Forget()
	s.token(t) // with what was read before
}

func TestAppRoleSecretFilesThatCannotBeRemovedAreAWarning(t *testing.T) {
	t.Parallel()
	secret, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	s := play(t, func(o *Options) { // nobody may remove what is below /proc, not even root
		o.Auth = config.Auth{Method: config.AuthAppRole, RoleID: "role-id-0123456789", SecretFile: fmt.Sprint("/secrets/", secret.Fd())}
	})
	if err := os.Symlink("/proc/self/fd", string(s.disk)+"/secrets"); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.WriteString(s.vault.secretID); err != nil {
		t.Fatal(err)
	}
	s.token(t)
	if log := s.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "/secret") || strings.Contains(log, s.vault.secretID) {
		t.Errorf("log: %s", log)
	}
}

func TestAppRoleSecretFilesAreKeptOnRequest(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) {
		o.Auth = config.Auth{Method: config.AuthAppRole, RoleID: "role-id-0123456789", SecretFile: "/secret", KeepSecret: true}
	})
	s.disk.write("/secret", s.vault.secretID)
	s.token(t)
	if _, err := s.disk.read("/secret"); err != nil {
		t.Error("the file was removed")
	}
	s.disk.write("/secret", "rotated")
	s.vault.change(func() { s.vault.secretID = "rotated" })
	s.Forget()
	s.token(t)
}

func TestJWTsAreReadAtEachLogin(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) {
		o.Auth = config.Auth{Method: config.AuthJWT, JWTFile: "/jwt", Role: "app"}
	})
	s.disk.write("/jwt", "old.old.old-token-of-before")
	_, err := s.Token(t.Context())
	if err == nil || !strings.Contains(err.Error(), "bound_audiences") || strings.Contains(err.Error(), "old.old") {
		t.Errorf("got %v", err)
	}
	s.disk.write("/jwt", s.vault.jwt)
	s.clock.move(time.Second)
	s.token(t)
}

func TestFilesThatHoldNothingNameTheFile(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{"": "is empty", " \n": "is empty", strings.Repeat("x", maxValue+1): "larger than"} {
		s := play(t, func(o *Options) { o.Auth = config.Auth{Method: config.AuthJWT, JWTFile: "/jwt"} })
		s.disk.write("/jwt", content)
		if _, err := s.Token(t.Context()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "/jwt") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	s := play(t, func(o *Options) { o.Auth = config.Auth{Method: config.AuthJWT, JWTFile: "/jwt"} })
	if _, err := s.Token(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestNamespacesGoWithTheLogin(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){
		"of the origin": func(o *Options) { o.Namespace = "team/a/" },
		"of the method": func(o *Options) { o.Namespace, o.Auth.Namespace = "other", "/team/a" },
	} {
		s := play(t, change)
		s.vault.namespace = "team/a"
		s.token(t)
		s.clock.move(50 * time.Minute)
		if err := s.Maintain(t.Context()); err != nil || s.vault.count(&s.vault.renewals) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokensOfFewUsesAreAWarning(t *testing.T) {
	t.Parallel()
	s := play(t, nil)
	s.vault.uses = 5
	s.token(t)
	if log := s.log.String(); !strings.Contains(log, "token_num_uses") {
		t.Errorf("log: %s", log)
	}
}
