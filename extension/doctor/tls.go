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
		for _, n := range e.nodes {
			n.failed = true
		}
		e.Tell(Fault(err.Error(), e.startsNot("ConfigInvalid"), "correct the file that it names; in Lambda files come with the function or a layer, or use VAULT_CACERT_BYTES"))
		return
	}
	if n := brokenCAs(e.Config.TLS); n > 0 {
		e.Tell(Advise("of the certificates in VAULT_CACERT "+strconv.Itoa(n)+" cannot be read", "Vault is not trusted by them", "write the file anew, from whole PEM blocks: openssl storeutl -noout -certs FILE"))
	}
	var wg sync.WaitGroup // what is hung is waited for once
	for _, n := range e.nodes {
		if n.failed {
			continue
		}
		if n.client, n.err = e.clientFor(n); n.err == nil {
			wg.Go(func() { n.greet(ctx) })
		}
	}
	wg.Wait()
	for _, n := range e.nodes {
		if !n.failed {
			e.Tell(e.greeted(n))
		}
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

// greet asks a node its first questions, its health and its leader among them.
func (n *node) greet(ctx context.Context) {
	if n.first, n.body, n.err = n.ask(ctx, "sys/seal-status"); n.err != nil {
		return
	}
	before := time.Now()
	h, err := n.client.Health(ctx)
	if n.err = err; err != nil {
		return
	}
	n.health, n.took = &h, time.Since(before)
	n.sent = before.Add(n.took / 2)
	before = time.Now()
	if l, err := n.client.Leader(ctx); err == nil {
		n.leader, n.took = &l, min(n.took, time.Since(before))
	}
}

// greeted says what the first answer tells.
func (e *Exam) greeted(n *node) Finding {
	switch failure, ok := errors.AsType[*vault.Error](n.err); {
	case ok && failure.Kind == vault.TLS:
		n.failed = true
		return Fault(n.String()+": "+failure.Err.Error(), "thaw sends nothing where it cannot be sure who listens, so every request fails", tlsFix(failure))
	case n.first == nil: // health says why
	case n.first.StatusCode == http.StatusBadRequest && strings.Contains(string(n.body), "HTTP request to an HTTPS server"):
		n.failed, n.health = true, nil
		return Fault(n.String()+" is written with http, and TLS is spoken there", "every request is refused", "write https:// in VAULT_ADDR")
	case strings.HasPrefix(n.first.Header.Get("Cache-Status"), "thaw;"):
		n.failed, n.health = true, nil
		return Finding{"self-loop", Problem, "what answers at " + n.String() + " is itself a thaw, not Vault",
			"secrets would be cached twice, and be as old as both allow; if it is this function's own, it asks itself", fixLoop}
	case n.first.TLS != nil && len(n.first.TLS.PeerCertificates) > 0:
		return e.certificate(n, n.first.TLS)
	}
	return Finding{}
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
