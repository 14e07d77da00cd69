package doctor

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/kms"
	"github.com/thaw-project/thaw/extension/memcached"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
	"github.com/thaw-project/thaw/extension/tier"
)

const withoutShared = "thaw works without its shared cache, and each new instance reads everything from Vault"

// memcachedNodes asks each node for its version, and then the whole as the
// product does.
func memcachedNodes(ctx context.Context, e *Exam) Finding {
	before := e.report.Problems
	for _, addr := range e.Config.Memcached {
		f := e.memcachedNode(ctx, addr)
		f.What = "memcached " + addr + ": " + f.What
		e.Tell(f)
	}
	if e.report.Problems > before {
		return Finding{}
	}
	return e.roundTrip(ctx)
}

// memcachedNode connects to one node by hand: the product's client says only
// that a node is out. What it finds is without the node's name.
func (e *Exam) memcachedNode(ctx context.Context, addr string) Finding {
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	dial := dialer.DialContext
	if e.Config.MemcachedTLS {
		cfg, err := memcached.TLSConfig(e.Config.MemcachedFiles)
		if err != nil {
			return Fault(err.Error(), withoutShared, "see THAW_MEMCACHED_CACERT, THAW_MEMCACHED_CLIENT_CERT and THAW_MEMCACHED_CLIENT_KEY")
		}
		dial = (&tls.Dialer{NetDialer: dialer, Config: cfg}).DialContext
	}
	nc, err := dial(ctx, "tcp", addr)
	switch failed, _ := errors.AsType[*net.OpError](err); {
	case is[*net.DNSError](err):
		return Fault("the name cannot be looked up: "+dnsError(err), withoutShared, "check THAW_MEMCACHED and the VPC's DNS settings: ElastiCache's names resolve inside its VPC only")
	case failed != nil && failed.Op == "dial":
		what, fix := dialError(err, "tcp")
		return Fault(what, withoutShared, strings.NewReplacer("VAULT_ADDR", "THAW_MEMCACHED", "Vault", "memcached").Replace(fix))
	case err != nil:
		return memcachedTLS(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(dialer.Timeout)) // a connection that was just made takes one
	// https://github.com/memcached/memcached/blob/master/doc/protocol.txt
	var line string
	if _, err = nc.Write([]byte("version\r\n")); err == nil {
		line, _ = bufio.NewReader(io.LimitReader(nc, 128)).ReadString('\n') // what there is, tells
	}
	version, spoken := strings.CutPrefix(line, "VERSION ")
	return verdicts{
		{spoken, Fine("it answers, version " + strings.TrimSpace(version))},
		{line == "" && !e.Config.MemcachedTLS, Fault("it takes the connection and does not answer", withoutShared,
			"if it speaks TLS (ElastiCache with encryption in transit), write tls:// before each node in THAW_MEMCACHED; else see what listens there")},
		{true, Fault("what listens there is not a memcached that thaw can use", withoutShared, "correct THAW_MEMCACHED (Redis or Valkey will not do), and turn off SASL")},
	}.first()
}

func memcachedTLS(err error) Finding {
	return verdicts{
		{is[tls.RecordHeaderError](err), Fault("it does not speak TLS", withoutShared, "remove tls:// in THAW_MEMCACHED, or turn on encryption in transit")},
		{is[x509.UnknownAuthorityError](err), Fault("its certificate is signed by a CA that this host does not trust", withoutShared,
			"set THAW_MEMCACHED_CACERT to the PEM file of the CA that signed it (ElastiCache's is public and needs none)")},
		{is[x509.HostnameError](err), Fault("its certificate is for another name", withoutShared,
			"use the name of the certificate in THAW_MEMCACHED, or set THAW_MEMCACHED_TLS_SERVER_NAME to it")},
		{true, Fault("the TLS handshake is cut off", withoutShared,
			"if it does not speak TLS, remove tls:// in THAW_MEMCACHED; else check its certificate, whether it wants one of yours (THAW_MEMCACHED_CLIENT_CERT), and that it accepts TLS 1.2")},
	}.first()
}

// roundTrip stores, reads and deletes one record with the product's client.
func (e *Exam) roundTrip(ctx context.Context) Finding {
	c, err := tier.Open(e.Config, time.Second, tier.Host{}, e.log)
	if err != nil {
		return Fault(err.Error(), e.startsNot("ConfigInvalid"), "correct THAW_MEMCACHED")
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c.Connect(ctx)
	name, value := "thaw-doctor-"+rand.Text(), []byte(rand.Text())
	if err := c.Set(ctx, name, value, 10*time.Second); err != nil {
		return Fault("memcached does not store a record: "+err.Error(), withoutShared,
			"see whether it is out of memory (its -m) and takes writes, and, with a configuration endpoint, whether its nodes can be reached from here")
	}
	defer func() { _ = c.Delete(ctx, name) }() // it ends by itself in ten seconds
	best := time.Hour
	for range 5 {
		began := time.Now()
		items, err := c.GetMulti(ctx, []string{name})
		if err != nil || !bytes.Equal(items[name].Value, value) {
			return Fault("memcached does not give back what was stored", withoutShared, "see that every instance names the same nodes, and whether it is evicting")
		}
		best = min(best, time.Since(began))
	}
	limit := e.Config.MemcachedTimeout
	what := "memcached needs " + best.Round(10*time.Microsecond).String() + " for a call, and THAW_MEMCACHED_TIMEOUT is " + limit.String()
	const fix = "raise THAW_MEMCACHED_TIMEOUT, or bring memcached nearer (same region and availability zones)"
	return verdicts{
		{best > limit, Fault(what, "every call of it is given up: "+withoutShared, fix)},
		{best > limit/2, Advise(what, "slower calls are given up and are misses", fix)},
		{true, Fine("a record can be stored and read; " + what)},
	}.first()
}

// cacheKey gets the key that seals the shared cache, and seals with it.
func cacheKey(ctx context.Context, e *Exam) Finding {
	cfg := e.Config
	const why = "nothing goes to the shared cache unsealed, so there is none"
	var ring *envelope.Keyring
	var err error
	switch {
	case cfg.CacheKey != "":
		if ring, err = envelope.ParseKeys(string(cfg.CacheKey)); err != nil {
			return Fault("THAW_CACHE_KEY: "+err.Error(), why, "make one with: openssl rand -base64 32")
		}
	case len(cfg.Warm.Audiences) > 0 && cfg.Warm.Audiences[0].Key != "":
		return Fine("each audience of THAW_WARM_AUDIENCES brings its key")
	default:
		if ring, err = e.unwrap(ctx); err != nil {
			what, check := err.Error(), ""
			if refused, ok := errors.AsType[*kms.Error](err); ok {
				what, check, _ = strings.Cut(refused.Error(), ": ")
				what = "THAW_CACHE_KEY_KMS: " + what
			}
			return Fault(what, why+" until the key service gives the key",
				cmp.Or(check, "check the region, the VPC's endpoint for the key service or its NAT, and the function's role"))
		}
	}
	sealer := ring.Audience(envelope.Join("doctor", cfg.Audience))
	aad := []string{"doctor"}
	if got, err := sealer.Open(aad, sealer.Seal(aad, []byte("probe"))); err != nil || string(got) != "probe" {
		return Fault("what is sealed with the key does not open", why, "report this as a bug")
	}
	what := "the key is there, fingerprint " + sealer.Fingerprint() + " (those who share have the same)"
	if n := ring.Len(); n > 1 {
		what += ". Of " + strconv.Itoa(n) + " keys it is the one that writes, and all read. The old ones can go when nothing they sealed is in memcached any more: CACHE_TTL and THAW_STALE_IF_ERROR after the change"
	}
	return Fine(what)
}

// unwrap has the platform's key service decrypt the key.
func (e *Exam) unwrap(ctx context.Context) (*envelope.Keyring, error) {
	_, unwrap, err := e.o.Platform(e.Config, e.log)
	if err == nil && unwrap == nil {
		err = errors.New("no key is configured")
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return unwrap(ctx, e.Config.Audience)
}

// audience says who shares.
func audience(_ context.Context, e *Exam) Finding {
	cfg := e.Config
	own := strconv.Quote(cfg.Auth.Mount) + "," + strconv.Quote(cfg.Auth.Role) + "," + strconv.Quote(cfg.Platform.FunctionName)
	const fix = "set THAW_AUDIENCE to the same name for all that are to share"
	return verdicts{
		{len(cfg.Warm.Audiences) > 0, Fine("the warm-up serves " + strconv.Itoa(len(cfg.Warm.Audiences)) + " audiences")},
		{cfg.Audience != own, Fine("the audience is " + cfg.Audience + ": what has this name, the same addresses of Vault, namespace and key shares")},
		{cfg.Warm.Enable || len(cfg.Warm.Paths) > 0, Fault("THAW_AUDIENCE is not set, so the warm-up fills an audience of its own: "+own,
			"no function looks there, and each goes on reading everything from Vault", fix)},
		{cfg.Platform.FunctionName == "", Advise("THAW_AUDIENCE is not set, and its default is made of the auth mount, the role and the function's name, which is not known here: "+own,
			"this process shares with others like it, and not with any Lambda function", fix)},
		{true, Fine("the audience is this function alone, by default: " + own + ". To share with others, set THAW_AUDIENCE")},
	}.first()
}
