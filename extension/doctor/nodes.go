package doctor

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/vault"
)

// signedFor is how far AWS lets the clock of a signature be off
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html).
const signedFor = 5 * time.Minute

// clock compares this host's clock with the nodes'.
func clock(_ context.Context, e *Exam) {
	for _, n := range e.nodes {
		if n.health == nil || n.health.ServerTime.Unix() == 0 {
			continue
		}
		// The node's time is cut to whole seconds.
		off := n.health.ServerTime.Add(time.Second / 2).Sub(n.sent).Round(time.Second)
		by := off.Abs()
		what := n.String() + ": its clock is " + by.String() + " ahead of this host's"
		if off < 0 {
			what = n.String() + ": its clock is " + by.String() + " behind this host's"
		}
		const fix = "have both synchronise by NTP (Lambda's hosts do: then it is Vault's)"
		switch {
		case by >= signedFor && e.Config.Auth.Method == config.AuthAWS:
			e.Problem(what, "AWS refuses signatures that are 5 minutes off, so a login fails", fix)
		case by >= time.Minute:
			e.Advice(what, "tokens seem to end earlier or later than they do, and a JWT may not be valid yet, or no more", fix)
		case by > e.Config.ClockSkew+2*time.Second && notSharing(e) == "":
			e.Advice(what, "if instances are as far apart, records of the shared cache are refused or used for too short a time", fix+", or raise THAW_CLOCK_SKEW")
		default:
			e.OK(n.String() + ": its clock is within " + max(by, time.Second).String() + " of this host's")
		}
	}
}

// health says which nodes are able to serve.
func health(_ context.Context, e *Exam) {
	able := serving(e) == ""
	add := func(n *node, what, why, fix string) {
		level := Problem
		if able {
			level, why = Advice, "the other nodes have to do without it"
		}
		e.add(level, n.String()+": "+what, why, fix)
	}
	for _, n := range e.nodes {
		if h := n.health; h == nil {
			if !n.failed && n.err != nil {
				add(n, n.err.Error(), nothingThere, "check that VAULT_ADDR names Vault and not what stands before it, and the load balancer's health checks")
			}
			continue
		}
		switch n.health.Role() {
		case vault.RoleUninitialized:
			add(n, "Vault is not initialised", "it holds no secrets yet", "run vault operator init there")
		case vault.RoleRemoved:
			add(n, "the node was removed from its cluster", "it will not serve again", "take it out of VAULT_ADDR or the load balancer, or join it anew with an empty folder")
		case vault.RoleSealed:
			add(n, "Vault is sealed", "it answers 503 to everything; thaw goes on serving what it has, for THAW_STALE_IF_ERROR", "unseal it (vault operator unseal), or see why its auto-unseal does not work")
		case vault.RoleUnhealthy:
			add(n, "a standby that has lost its active node", "it can answer nothing that must be current", "see the network between Vault's nodes (port 8201), and its log")
		case vault.RoleDRSecondary:
			add(n, "a disaster recovery secondary", "it serves no secrets", "use the primary's address, or promote it")
		default:
			e.OK(n.String() + ": initialised, unsealed, version " + version(n.health))
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
	for _, n := range e.nodes {
		h := n.health
		if h == nil {
			continue
		}
		e.OK(n.String() + ": " + h.Role().String())
		if h.ClusterID != "" && !slices.Contains(clusters, h.ClusterID) {
			clusters = append(clusters, h.ClusterID)
		}
		if !slices.Contains(versions, h.Version) {
			versions = append(versions, h.Version)
		}
		if h.ReplicationPerformanceMode == "secondary" {
			e.Advice(n.String()+" belongs to a performance secondary",
				"it lags behind its primary: \"fresh\" means what this cluster would answer", "use the primary's address where that is too old")
		}
	}
	if len(clusters) > 1 {
		e.Problem("the addresses are of "+strconv.Itoa(len(clusters))+" different clusters",
			"what is read from one is served for the other, whose secrets and policies may differ", "name nodes of one cluster only in THAW_VAULT_ADDRS, and check what the name in VAULT_ADDR stands for")
	}
	if len(versions) > 1 {
		e.Advice("the nodes run different versions: "+strings.Join(versions, ", "),
			"what their standbys do may differ; as a step of an upgrade it is fine", "finish the upgrade")
	}
}

// standbys compares what the standbys of an Enterprise cluster do with reads
// (https://developer.hashicorp.com/vault/docs/enterprise/performance-standby).
func standbys(_ context.Context, e *Exam) {
	var serve, forward []string
	for _, n := range e.nodes {
		switch h := n.health; {
		case h == nil || h.Sealed:
		case h.PerformanceStandby:
			serve = append(serve, n.String())
		case h.Standby && h.Enterprise:
			forward = append(forward, n.String())
		}
	}
	switch {
	case len(serve) > 0 && len(forward) > 0:
		e.Advice("the nodes disagree on performance standbys: "+strings.Join(serve, ", ")+" answer reads themselves, "+strings.Join(forward, ", ")+" forward them",
			"a read may be older at one node than at another, and which one answers is chance; or licences or versions differ",
			"give disable_performance_standby the same value in every node's configuration, and every node the same licence")
	case len(serve) > 0:
		e.OK("performance standbys serve reads: " + strings.Join(serve, ", "))
	default:
		e.OK("no performance standbys: the active node answers every read")
	}
}
