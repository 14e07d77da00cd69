package memcached

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/material"
)

// TLSConfig reads the files that say how nodes prove who they are.
func TLSConfig(t config.MemcachedTLS) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: t.ServerName,
		// After a freeze every connection is new; resuming spares the
		// handshake's signatures.
		ClientSessionCache: tls.NewLRUClientSessionCache(32),
	}
	if t.ClientCert != "" || t.ClientKey != "" {
		pair, err := tls.LoadX509KeyPair(t.ClientCert, t.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate for memcached (%s, %s): %w", t.ClientCert, t.ClientKey, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	var err error
	if t.CACert != "" {
		cfg.RootCAs, err = material.CAs("memcached's CA file", t.CACert)
	}
	return cfg, err
}

// dial connects to the node, with TLS where that is set. It tries the addresses of its name.
func (n *node) dial(ctx context.Context) (net.Conn, error) {
	addrs, err := n.resolve(ctx)
	if err != nil {
		return nil, err
	}
	nc, err := inTurn(ctx, addrs, len(addrs), func(ctx context.Context, addr string) (net.Conn, error) {
		return n.c.dialOne(ctx, net.JoinHostPort(addr, n.port), n.host)
	})
	if err != nil {
		n.forget()
	}
	return nc, err
}

// inTurn calls f with one after the other until there is no error, each with its share
// of the time left of ctx, which has a deadline. So many share it at most: those behind
// them may get none.
func inTurn[T any](ctx context.Context, all []string, sharers int, f func(ctx context.Context, one string) (T, error)) (got T, err error) {
	var errs []error
	for i, one := range all {
		deadline, _ := ctx.Deadline()
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(min(len(all)-i, sharers)))
		got, err = f(share, one)
		cancel()
		if err == nil {
			return got, nil
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return got, errors.Join(errs...)
}

func (c *Client) dialOne(ctx context.Context, address, host string) (net.Conn, error) {
	nc, err := c.o.Dial(ctx, "tcp", address)
	if err != nil || c.tls == nil {
		return nc, err
	}
	cfg, err := c.tls.Get()
	if err != nil {
		nc.Close()
		return nil, err
	}
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		c.Reload() // for the next one
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	return tc, nil
}

// resolve returns the addresses of the node's name. They are asked for again by
// age, and after an error (forget).
func (n *node) resolve(ctx context.Context) ([]string, error) {
	now := n.c.o.Now()
	n.mu.Lock()
	addrs, young := n.addrs, clock.Within(n.resolved, now, n.c.o.Refresh)
	n.mu.Unlock()
	if !young {
		var err error
		if addrs, err = lookup(ctx, n.host); err != nil {
			return nil, err
		}
		n.learn(now, addrs...)
	}
	if i := slices.IndexFunc(addrs, func(a string) bool { return !foreign(a) }); n.guard && i >= 0 {
		return nil, fmt.Errorf("the cluster's list of nodes leads to %s, which is no place for a node", addrs[i])
	}
	return addrs, nil
}

// lookup orders a name's addresses so that every instance tries the same first:
// each of several would keep a copy of its own.
func lookup(ctx context.Context, host string) ([]string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []string{ip.String()}, nil
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(addrs, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, ":"), strings.Count(b, ":")), strings.Compare(a, b))
	})
	return addrs, nil
}

// learn takes addresses that were asked for, or that discovery told.
func (n *node) learn(now time.Time, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs, n.resolved = addrs, now
}

// forget has the node's name looked up again.
func (n *node) forget() { n.learn(time.Time{}) }

// foreign reports whether an address can be another machine's: not this one,
// nor the link's own services such as a metadata endpoint.
func foreign(addr string) bool {
	ip, err := netip.ParseAddr(addr)
	return err == nil && ip.Unmap().IsGlobalUnicast() && ip.Zone() == ""
}

func validPort(p string) bool {
	n, err := strconv.ParseUint(p, 10, 16)
	return err == nil && n > 0 && p[0] != '0'
}

// hostLetters are what a host's name is made of.
const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

// validHost reports whether h can be a host's name or address.
func validHost(h string) bool {
	_, err := netip.ParseAddr(h)
	return err == nil || h != "" && len(h) <= 253 && strings.Trim(h, hostLetters) == ""
}
