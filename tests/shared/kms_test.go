package shared

import (
	"context"
	"encoding/base64"
	"net/http/httptest"
	"testing"
	"time"

	fake "github.com/thaw-project/thaw/tests/fakes/kms"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestNobodyWaitsForKMS: the extension asks KMS during its init. While KMS is away
// it serves without the shared tier, and a later invocation picks it up.
func TestNobodyWaitsForKMS(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	names := o.fill(3)
	keys := harness.AWSCredentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: mark + "aws"}
	kms := fake.New(fake.Options{Region: "eu-west-1", Keys: keys})
	at := httptest.NewServer(kms)
	t.Cleanup(at.Close)
	key := kms.Encrypt([]byte(mark+"abcdefghijklmnopqr"), map[string]string{"audience": "shop"})
	s := o.login(true).With(harness.Settings{
		"THAW_CACHE_KEY_KMS": base64.StdEncoding.EncodeToString(key), "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_KMS": at.URL,
		"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey, "AWS_SESSION_TOKEN": "",
	})
	delete(s, "THAW_CACHE_KEY")
	kms.SetAway(true)
	first := cold(t, s)
	first.reads(o, names)
	if n := o.items(); n != 0 {
		t.Errorf("%d items in memcached without a key", n)
	}
	kms.SetAway(false)
	harness.Eventually(t, 20*time.Second, "the key is there", func() bool {
		first.invoke(func(ctx context.Context) { harness.Pause(ctx, 50*time.Millisecond) })
		return kms.Calls() > 0
	})
	o.put(names[0])
	harness.Eventually(t, 20*time.Second, "the tier is filled", func() bool {
		o.put(names[0])
		first.reads(o, names[:1])
		return o.items() > 0
	})
	if f := kms.Faults(); len(f) > 0 {
		t.Error(f)
	}
	if kms.Calls() != 1 {
		t.Errorf("KMS decrypted %d times for one start", kms.Calls())
	}
}
