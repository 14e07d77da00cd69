package tier

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	fake "github.com/thaw-project/thaw/tests/fakes/kms"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestAnUnreachableKMSIsAskedEverLessOften counts what a busy function's
// invocations ask of a KMS that is away, and of one that hangs.
func TestAnUnreachableKMSIsAskedEverLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, away := 0, true
		d := newDeferred(func(context.Context) error {
			if asked++; away {
				return errors.New("away")
			}
			return nil
		}, slog.New(slog.DiscardHandler))
		invoke := func(lasts time.Duration) {
			for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				d.wake()
				synctest.Wait()
			}
		}
		synctest.Wait()
		if asked != 0 {
			t.Error("asked before an INVOKE")
		}
		invoke(10 * time.Minute)
		if asked < 10 || asked > 20 {
			t.Errorf("asked %d times in 10 minutes", asked)
		}
		away = false
		invoke(time.Minute + time.Second)
		n := asked
		if invoke(time.Minute); !d.here.Load() || asked != n {
			t.Errorf("the key is here: %v; asked %d times more", d.here.Load(), asked-n)
		}
		d.attempts.Close(t.Context())
	})
}

// TestAFirstReadWaitsForTheKeyForAWhile: not before it is asked for, not longer
// than keyWait in all, and for the first attempt only.
func TestAFirstReadWaitsForTheKeyForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		answer := make(chan error)
		d := newDeferred(func(ctx context.Context) error {
			select {
			case err := <-answer:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}, slog.New(slog.DiscardHandler))
		defer d.attempts.Close(context.Background())
		waits := func(ctx context.Context, want time.Duration, there bool) {
			t.Helper()
			from := time.Now()
			if got := d.await(ctx); got != there || time.Since(from) != want {
				t.Errorf("at %s: tier %v after %s, want %v after %s", from.Sub(begin), got, time.Since(from), there, want)
			}
		}
		waits(t.Context(), 0, false) // nobody asked yet
		d.wake()
		left, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		waits(left, 30*time.Millisecond, false)
		waits(t.Context(), keyWait-30*time.Millisecond, false)
		waits(t.Context(), 0, false)
		answer <- errors.New("away")
		synctest.Wait()
		time.Sleep(2 * keyPause)
		d.wake()
		waits(t.Context(), 0, false) // one attempt has failed
		answer <- nil
		synctest.Wait()
		waits(t.Context(), 0, true)
	})
	synctest.Test(t, func(t *testing.T) {
		d := newDeferred(func(context.Context) error {
			time.Sleep(40 * time.Millisecond)
			return nil
		}, slog.New(slog.DiscardHandler))
		defer d.attempts.Close(context.Background())
		d.wake()
		if from := time.Now(); !d.await(t.Context()) || time.Since(from) != 40*time.Millisecond {
			t.Errorf("no tier after %s", time.Since(from))
		}
	})
}

func TestAnAttemptThatAFreezeInterruptedIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		d := newDeferred(func(ctx context.Context) error {
			if asked++; asked == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, slog.New(slog.DiscardHandler))
		defer d.attempts.Close(context.Background())
		d.wake()
		synctest.Wait()
		d.wake() // one runs
		synctest.Wait()
		if asked != 1 {
			t.Errorf("asked %d times at once", asked)
		}
		// The wall clock went on, the timers did not.
		d.now = func() time.Time { return time.Now().Add(time.Hour) }
		d.wake()
		synctest.Wait()
		if asked != 2 || !d.here.Load() {
			t.Errorf("asked %d times, key: %v", asked, d.here.Load())
		}
	})
}

// wrapped are the settings of a tier whose key KMS at url encrypted.
func wrapped(node, url string, keys harness.AWSCredentials, audience string, ciphertexts ...[]byte) config.Config {
	return config.Config{
		Addrs: []string{"http://127.0.0.1:1"}, CacheEnable: true, Memcached: []string{node}, MemcachedTimeout: time.Second, ConnTimeout: time.Second, IdleConn: time.Minute,
		CacheKeyKMS: ciphertexts, Audience: audience, MaxAge: time.Minute, CacheTTL: time.Hour, RefreshInterval: time.Minute,
		Platform: config.Platform{Region: "us-east-1", AWS: config.AWS{
			AccessKeyID: keys.AccessKeyID, SecretAccessKey: config.Secret(keys.SecretAccessKey), EndpointKMS: url,
		}},
	}
}

// settle waits for the attempt that is under way.
func (d *deferred) settle() {
	if c := d.attempts.Running(struct{}{}); c != nil {
		<-c.Done()
	}
}

// opened starts a tier and has it ask KMS once.
func opened(t *testing.T, cfg config.Config) (*Tier, *bytes.Buffer) {
	t.Helper()
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	unwrap, err := KMS(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, unwrap, Host{}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.wake()
	s.settle()
	return s, &text
}

func TestTheTierWorksOnceKMSIsThere(t *testing.T) {
	t.Parallel()
	m := harness.Memcache(t, harness.MemcachedConfig{})
	keys := harness.AWSCredentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "PlantedSecret"}
	server := fake.New(fake.Options{Keys: keys})
	at := httptest.NewServer(server)
	t.Cleanup(at.Close)
	shop := map[string]string{"audience": "shop"}
	newKey, oldKey := server.Encrypt([]byte("PlantedSecret-0123456789abcdefgh"), shop), server.Encrypt([]byte("PlantedSecret-abcdefgh0123456789"), shop)
	server.SetAway(true)
	s, text := opened(t, wrapped(m.Addr(), at.URL, keys, "shop", oldKey))
	s.PutState(t.Context(), "x", 1, time.Minute)
	var got int
	if s.State(t.Context(), "x", &got) || !strings.Contains(text.String(), "503") {
		t.Errorf("without a key: %d\n%s", got, text)
	}
	if records, _ := s.Fetch(t.Context(), []cache.Key{{Path: "secret/data/a"}}); len(records) > 0 {
		t.Error("records without a key")
	}
	if _, _, taken := s.Lock(t.Context(), "x", time.Second, false); taken {
		t.Error("waits for another while there is no tier")
	}
	ended := cache.Key{Path: "secret/data/ended"}
	s.Drop(t.Context(), nil, []cache.Capability{ended.Capability()}, time.Now())
	server.SetAway(false)
	s.now = func() time.Time { return time.Now().Add(2 * keyPause) } // a later invocation
	s.wake()
	s.settle()
	if _, known := s.Fetch(t.Context(), []cache.Key{ended}); known[ended.Capability()].Ended.IsZero() {
		t.Errorf("what ended without a key: %+v", known)
	}
	s.PutState(t.Context(), "x", 7, time.Minute)
	if !s.State(t.Context(), "x", &got) || got != 7 {
		t.Errorf("with a key: %d", got)
	}
	// A rotated key: the first writes, all read.
	rotated, _ := opened(t, wrapped(m.Addr(), at.URL, keys, "shop", newKey, oldKey))
	if got = 0; !rotated.State(t.Context(), "x", &got) || got != 7 {
		t.Errorf("under the old key after a rotation: %d", got)
	}
	// Another audience gets no key.
	other, text2 := opened(t, wrapped(m.Addr(), at.URL, keys, "bank", oldKey))
	if other.here.Load() || !strings.Contains(text2.String(), "InvalidCiphertextException") {
		t.Errorf("another audience: %s", text2)
	}
	if all := text.String() + text2.String(); strings.Contains(all, "PlantedSecret") || len(server.Faults()) > 0 {
		t.Errorf("%s\n%q", all, server.Faults())
	}
}

// TestKMSOfMoto decrypts what another implementation of KMS encrypted.
func TestKMSOfMoto(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts moto")
	}
	moto := harness.AWS(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	call := func(action string, in map[string]any, into any) {
		t.Helper()
		body, _ := json.Marshal(in)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, moto.Addr()+"/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-amz-json-1.1")
		req.Header.Set("X-Amz-Target", "TrentService."+action)
		harness.SignAWS(req, string(body), moto.Admin, "us-east-1", "kms", time.Now())
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK {
			t.Skipf("NOT TESTED: moto without KMS answers %s", res.Status)
		}
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatal(err)
		}
	}
	var key struct{ KeyMetadata struct{ KeyId string } }
	call("CreateKey", map[string]any{}, &key)
	var data, enc struct{ CiphertextBlob, Plaintext []byte }
	shop := map[string]string{"audience": "shop"}
	call("GenerateDataKey", map[string]any{"KeyId": key.KeyMetadata.KeyId, "KeySpec": "AES_256", "EncryptionContext": shop}, &data)
	call("Encrypt", map[string]any{"KeyId": key.KeyMetadata.KeyId, "Plaintext": bytes.Repeat([]byte{7}, 32), "EncryptionContext": shop}, &enc)
	if err := moto.EnableSignatureChecks(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, text := opened(t, wrapped(m.Addr(), moto.Addr(), moto.Admin, "shop", data.CiphertextBlob, enc.CiphertextBlob))
	var got int
	s.PutState(t.Context(), "x", 7, time.Minute)
	if !s.State(t.Context(), "x", &got) || got != 7 {
		t.Errorf("%d\n%s", got, text)
	}
	other, text := opened(t, wrapped(m.Addr(), moto.Addr(), moto.Admin, "bank", data.CiphertextBlob))
	if other.here.Load() || !strings.Contains(text.String(), "encryption context") {
		t.Errorf("the wrong context: %s", text)
	}
	forger := moto.Admin
	forger.SecretAccessKey = "wrong"
	if f, text := opened(t, wrapped(m.Addr(), moto.Addr(), forger, "shop", data.CiphertextBlob)); f.here.Load() {
		t.Errorf("a bad signature: %s", text)
	}
	if strings.Contains(text.String(), base64.StdEncoding.EncodeToString(data.Plaintext)) {
		t.Error("the log shows the key")
	}
}
