package auth

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// hand is a clock that stands still until it is moved.
type hand struct {
	mu sync.Mutex // guards t
	t  time.Time
}

func newHand() *hand { return &hand{t: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)} }

func (h *hand) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.t
}

func (h *hand) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t = h.t.Add(d)
}

// disk is a folder that the names of files are in.
type disk string

func (d disk) read(name string) ([]byte, error) { return os.ReadFile(string(d) + name) }

func (d disk) remove(name string) { _ = os.Remove(string(d) + name) }

func (d disk) write(name, content string) {
	if err := os.WriteFile(string(d)+name, []byte(content), 0o600); err != nil {
		panic(err)
	}
}

// notes is a log that can be read.
type notes struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

// owner counts what it is told.
type owner struct{ resets atomic.Uint64 }

func (o *owner) Reset()           { o.resets.Add(1) }
func (o *owner) EndLeases()       {}
func (o *owner) SetEnd(time.Time) {}

// Generation counts the identities that it was.
func (o *owner) Generation() uint64 { return 1 + o.resets.Load() }

// scene is a manager with all that is around it.
type scene struct {
	*Manager
	*owner
	clock *hand
	vault *vault
	disk  disk
	log   *notes
}

// play makes a scene in which approle works; change alters the options.
func play(t *testing.T, change func(*Options)) *scene {
	t.Helper()
	clock := newHand()
	v := newVault(t, clock.now)
	s := playOn(t, v, v, clock.now, change)
	s.clock = clock
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Shutdown(ctx)
	})
	return s
}

func playOn(t *testing.T, v *vault, origin Origin, now func() time.Time, change func(*Options)) *scene {
	t.Helper()
	s := &scene{owner: new(owner), vault: v, disk: disk(t.TempDir()), log: &notes{}}
	o := Options{
		Config: config.Config{Auth: config.Auth{
			Method: config.AuthAppRole, RoleID: s.vault.roleID, SecretID: config.Secret(s.vault.secretID), ExpiryGrace: 10 * time.Second,
		}},
		Origin: origin, Own: s.owner, Now: now, Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	if change != nil {
		change(&o)
	}
	for _, file := range []*string{&o.Auth.RoleIDFile, &o.Auth.SecretFile, &o.Auth.JWTFile, &o.Auth.TokenFile, &o.Platform.AWS.CredentialsFile} {
		if *file != "" {
			*file = string(s.disk) + *file
		}
	}
	var err error
	if s.Manager, err = New(o); err != nil {
		t.Fatal(err)
	}
	return s
}

// token is what Token returns; it must not fail.
func (s *scene) token(t *testing.T) string {
	t.Helper()
	v, err := s.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}
