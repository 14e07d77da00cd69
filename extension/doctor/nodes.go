package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/vault"
)

// tlsChain asks each node its first question, and looks at the certificate
// that comes with the answer.
func tlsChain(ctx context.Context, e *Exam) {
	if err := e.client.Check(); err != nil {
		e.Tell(Fault(err.Error(), e.startsNot("ConfigInvalid"), "correct the file that it names; in Lambda files come with the function or a layer, or use VAULT_CACERT_BYTES"))
		return
	}
	if n := brokenCAs(e.Config.TLS); n > 0 {
		e.Tell(Advise("of the certificates in VAULT_CACERT "+strconv.Itoa(n)+" cannot be read", "Vault is not trusted by them", "write the file anew, from whole PEM blocks: openssl storeutl -noout -certs FILE"))
	}
	found := make([]Finding, len(e.nodes))
	var wg sync.WaitGroup // what is hung is waited for once
	for i, n := range e.nodes {
		if n.failed {
			continue
		}
		if n.client, n.err = e.clientFor(n); n.err == nil {
			wg.Go(func() { found[i] = e.greet(ctx, n) })
		}
	}
	wg.Wait()
	for _, f := range found {
		e.Tell(f)
	}
}

// brokenCAs is how many of the CA's certificates are left out of what is trusted,
// since they cannot be read.
func brokenCAs(t config.TLS) (broken int) {
	text := []byte(t.CACertPEM)
	if t.CACert != "" {
		text, _ = os.ReadFile(t.CACert) // was read a moment ago
	}
	begun := bytes.Count(text, []byte("-----BEGIN CERTIFICATE-----"))
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParseCertificate(block.Bytes); block.Type == "CERTIFICATE" && err == nil {
			begun--
		}
	}
	return max(begun, 0)
}

// greet asks a node its first questions, and says what the first answer tells.
func (e *Exam) greet(ctx context.Context, n *node) Finding {
	res, body, err := n.ask(ctx, "sys/seal-status")
	if err == nil {
		err = n.introduce(ctx)
	}
	n.err = err
	switch failure, ok := errors.AsType[*vault.Error](err); {
	case ok && failure.Kind == vault.TLS:
		n.failed = true
		return Fault(n.String()+": "+failure.Err.Error(), "thaw sends nothing where it cannot be sure who listens, so every request fails", tlsFix(failure))
	case res.StatusCode == 0: // health says why
	case res.StatusCode == http.StatusBadRequest && strings.Contains(string(body), "HTTP request to an HTTPS server"):
		n.failed, n.health = true, nil
		return Fault(n.String()+" is written with http, and TLS is spoken there", "every request is refused", "write https:// in VAULT_ADDR")
	case strings.HasPrefix(res.Header.Get("Cache-Status"), "thaw;"):
		n.failed, n.health = true, nil
		return Finding{"self-loop", Problem, "what answers at " + n.String() + " is itself a thaw, not Vault",
			"secrets would be cached twice, and be as old as both allow; if it is this function's own, it asks itself", fixLoop}
	case res.TLS != nil && len(res.TLS.PeerCertificates) > 0:
		return e.certificate(n, res.TLS)
	}
	return Finding{}
}

// introduce asks a node for its health and its leader.
func (n *node) introduce(ctx context.Context) error {
	before := time.Now()
	h, err := n.client.Health(ctx)
	if err != nil {
		return err
	}
	n.health, n.took = &h, time.Since(before)
	n.sent = before.Add(n.took / 2)
	before = time.Now()
	if l, err := n.client.Leader(ctx); err == nil {
		n.leader, n.took = &l, min(n.took, time.Since(before))
	}
	return nil
}

// tlsFix says what to do where TLS fails at a node.
func tlsFix(err *vault.Error) string {
	invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
	hostname, other := errors.AsType[x509.HostnameError](err)
	switch text := err.Err.Error(); {
	case is[x509.UnknownAuthorityError](err):
		return "set VAULT_CACERT to the PEM file of the CA that signed it, or VAULT_CACERT_BYTES to its text; the server must send the intermediate certificates itself"
	case other:
		names := slices.Clone(hostname.Certificate.DNSNames)
		for _, ip := range hostname.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		if len(names) == 0 {
			return "have Vault's certificate issued anew with subject alternative names: its common name does not count"
		}
		return "use a name of the certificate in VAULT_ADDR, or set VAULT_TLS_SERVER_NAME to one of them: " + strings.Join(names[:min(len(names), 5)], ", ")
	case invalid.Reason == x509.Expired:
		return "renew Vault's certificate, or correct the clock of this host if the certificate is good"
	case strings.Contains(text, "does not speak TLS"):
		return "write http:// in VAULT_ADDR if Vault serves no TLS (it should), or correct the port"
	case strings.Contains(text, "remote error"):
		return "set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY to a certificate that Vault's listener accepts (tls_client_ca_file there)"
	}
	return "check the certificate, VAULT_CACERT, and the TLS versions that the other end accepts"
}

// certificate looks at one that was accepted.
func (e *Exam) certificate(n *node, s *tls.ConnectionState) Finding {
	leaf := s.PeerCertificates[0]
	left, whole := time.Until(leaf.NotAfter), leaf.NotAfter.Sub(leaf.NotBefore)
	until := leaf.NotAfter.UTC().Format("2006-01-02 15:04 MST")
	if left < 14*24*time.Hour && left < whole/10 {
		return Advise(n.String()+": the certificate ends "+until, "from then on every request fails", "renew Vault's certificate; thaw needs no restart for it")
	}
	by := "the configured CA, or the system's"
	if e.Config.TLS.SkipVerify {
		by = "nobody: VAULT_SKIP_VERIFY is set"
	}
	return Fine(n.String() + ": " + tls.VersionName(s.Version) + ", good until " + until + ", vouched for by " + by)
}

// signedFor is how far AWS lets the clock of a signature be off
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html).
const signedFor = 5 * time.Minute

// clock compares this host's clock with the nodes'.
func clock(_ context.Context, e *Exam) {
	for _, n := range e.asked() {
		// The node's time is cut to whole seconds.
		off := n.health.ServerTime.Add(time.Second / 2).Sub(n.sent).Round(time.Second)
		by, way := off.Abs(), "ahead of"
		if off < 0 {
			way = "behind"
		}
		what := n.String() + ": its clock is " + by.String() + " " + way + " this host's"
		const fix = "have both synchronise by NTP (Lambda's hosts do: then it is Vault's)"
		e.Tell(verdicts{
			{n.health.ServerTime.Unix() == 0, Finding{}}, // it does not tell
			{by >= signedFor && e.Config.Auth.Method == config.AuthAWS, Fault(what, "AWS refuses signatures that are 5 minutes off, so a login fails", fix)},
			{by >= time.Minute, Advise(what, "tokens seem to end earlier or later than they do, and a JWT may not be valid yet, or no more", fix)},
			{by > e.Config.ClockSkew+2*time.Second && notSharing(e) == "", Advise(what,
				"if instances are as far apart, records of the shared cache are refused or used for too short a time", fix+", or raise THAW_CLOCK_SKEW")},
			{true, Fine(n.String() + ": its clock is within " + max(by, time.Second).String() + " of this host's")},
		}.first())
	}
}

// health says which nodes are able to serve.
func health(_ context.Context, e *Exam) {
	faults := map[vault.Role]Finding{
		vault.RoleUninitialized: Fault("Vault is not initialised", "it holds no secrets yet", "run vault operator init there"),
		vault.RoleRemoved: Fault("the node was removed from its cluster", "it will not serve again",
			"take it out of VAULT_ADDR or the load balancer, or join it anew with an empty folder"),
		vault.RoleSealed: Fault("Vault is sealed", "it answers 503 to everything; thaw goes on serving what it has, for THAW_STALE_IF_ERROR",
			"unseal it (vault operator unseal), or see why its auto-unseal does not work"),
		vault.RoleUnhealthy: Fault("a standby that has lost its active node", "it can answer nothing that must be current",
			"see the network between Vault's nodes (port 8201), and its log"),
		vault.RoleDRSecondary: Fault("a disaster recovery secondary", "it serves no secrets", "use the primary's address, or promote it"),
	}
	for _, n := range e.nodes {
		var f Finding
		if n.health != nil {
			f = faults[n.health.Role()]
		} else if !n.failed && n.err != nil {
			f = Fault(n.err.Error(), nothingThere, "check that VAULT_ADDR names Vault and not what stands before it, and the load balancer's health checks")
			if err, ok := errors.AsType[*vault.Error](n.err); ok && err.Kind == vault.Timeout {
				if e.impatient {
					f.What = "no answer in " + patience.String()
				}
				f.Fix = "see why Vault takes connections and does not answer (its log, its storage, its host); " + f.Fix
			} else if path := strings.TrimRight(n.url.Path, "/"); path != "" && n.url.Scheme != "unix" {
				f.Fix = "leave " + path + " out of VAULT_ADDR, unless Vault is served below it; " + f.Fix
			}
		}
		if f.What != "" {
			e.Tell(matters(serving(e) != "", n.String()+": "+f.What, f.Why, "the other nodes have to do without it", f.Fix))
		} else if n.health != nil {
			e.Tell(Fine(n.String() + ": initialised, unsealed, version " + version(n.health)))
		}
	}
}

func version(h *vault.Health) string {
	switch {
	case h.OpenBao:
		return h.Version + " (OpenBao)"
	case h.Enterprise:
		return h.Version + " (Enterprise)"
	}
	return h.Version
}

// nodes says what each is, and whether they belong together.
func nodes(_ context.Context, e *Exam) {
	var clusters, versions []string
	for _, n := range e.asked() {
		h := n.health
		e.Tell(Fine(n.String() + ": " + h.Role().String()))
		if h.ClusterID != "" && !slices.Contains(clusters, h.ClusterID) {
			clusters = append(clusters, h.ClusterID)
		}
		if !slices.Contains(versions, h.Version) {
			versions = append(versions, h.Version)
		}
		if h.ReplicationPerformanceMode == "secondary" {
			e.Tell(Advise(n.String()+" belongs to a performance secondary",
				"it lags behind its primary: \"fresh\" means what this cluster would answer", "use the primary's address where that is too old"))
		}
	}
	if len(clusters) > 1 {
		e.Tell(Fault("the addresses are of "+strconv.Itoa(len(clusters))+" different clusters",
			"what is read from one is served for the other, whose secrets and policies may differ", "name nodes of one cluster only in THAW_VAULT_ADDRS, and check what the name in VAULT_ADDR stands for"))
	}
	if len(versions) > 1 {
		e.Tell(Advise("the nodes run different versions: "+strings.Join(versions, ", "),
			"what their standbys do may differ; as a step of an upgrade it is fine", "finish the upgrade"))
	}
}

// standbys compares what the standbys of an Enterprise cluster do with reads
// (https://developer.hashicorp.com/vault/docs/enterprise/performance-standby).
func standbys(_ context.Context, e *Exam) Finding {
	var serve, forward []string
	for _, n := range e.asked() {
		switch h := n.health; {
		case h.Sealed:
		case h.PerformanceStandby:
			serve = append(serve, n.String())
		case h.Standby && h.Enterprise:
			forward = append(forward, n.String())
		}
	}
	who := strings.Join(serve, ", ")
	return verdicts{
		{len(serve) > 0 && len(forward) > 0, Advise("the nodes disagree on performance standbys: "+who+" answer reads themselves, "+strings.Join(forward, ", ")+" forward them",
			"a read may be older at one node than at another, and which one answers is chance; or licences or versions differ",
			"give disable_performance_standby the same value in every node's configuration, and every node the same licence")},
		{len(serve) > 0, Fine("performance standbys serve reads: " + who)},
		{true, Fine("no performance standbys: the active node answers every read")},
	}.first()
}

// freshness says how late a change in Vault may be seen.
func freshness(_ context.Context, e *Exam) Finding {
	what := "a change in Vault is seen " + e.Config.Freshness()
	if e.Config.Poll == config.PollOff && e.Config.DefaultTTL == 0 {
		return Advise(what, "a rotated secret goes on being served", "remove THAW_POLL, or set VAULT_DEFAULT_CACHE_TTL")
	}
	return Fine(what)
}

// latency compares how long Vault takes with how long reads wait for it.
func latency(_ context.Context, e *Exam) {
	limit := e.Config.PollTimeout
	for _, n := range e.asked() {
		what := n.String() + ": an answer takes " + n.took.Round(time.Millisecond).String() + ", and THAW_POLL_TIMEOUT is " + limit.String()
		e.Tell(verdicts{
			{e.Config.Poll == config.PollOff, Finding{}},
			{n.took > limit, Fault(what, "no verification ends in time, so each read asks for itself, or what is cached is served marked stale",
				"raise THAW_POLL_TIMEOUT to twice that, or bring Vault nearer")},
			{n.took > limit/2, Advise(what, "slower answers come too late, and what is cached is served marked stale", "raise THAW_POLL_TIMEOUT")},
			{true, Fine(what)},
		}.first())
	}
}
