package memcached

import (
	"context"
	"slices"
)

// Each instance has a node of its own, so that what all instances ask for all the time
// lies on every node and each asks for its own node's copy; and so that a fleet of
// frozen instances, which go on holding their connections, holds one each.

// At are the calls for keys that lie on one node, or where the ring puts them.
type At struct {
	c  *Client
	id string // the node's; empty: as the ring says
}

// On are the calls for keys on the node of that id.
func (c *Client) On(id string) At { return At{c, id} }

// of returns key's node; nil: it has left, or none is known.
func (a At) of(top *topology, key string) *node {
	if a.id == "" && len(top.nodes) > 0 {
		return top.nodes[top.ring.pick(key, nil)]
	}
	return top.node(a.id)
}

// node returns the node of that id, or nil.
func (top *topology) node(id string) *node {
	if i, ok := slices.BinarySearch(top.ring.ids, id); ok {
		return top.nodes[i]
	}
	return nil
}

// Own returns the id of this instance's own node; empty while no node is known. While
// the node is out it is another one.
func (c *Client) Own(ctx context.Context) string {
	_, top, end, err := c.begin(ctx)
	defer end()
	if err != nil {
		return ""
	}
	return c.own(top).id
}

func (c *Client) own(top *topology) *node {
	return top.nodes[top.ring.pick(c.instance(), func(i int) bool { return !top.nodes[i].breaker.out() })]
}

// Use begins what calls belong to that follow each other; the function that it returns
// ends it. After the last use of a process that is to be frozen, only the own node's
// connection is kept: it could not close one later.
func (c *Client) Use() (end func()) {
	c.uses.Add(1)
	return func() {
		top := c.top.Load()
		if c.uses.Add(-1) != 0 || !c.o.Frozen || len(top.nodes) == 0 {
			return
		}
		own := c.own(top)
		for _, n := range top.nodes {
			if n != own {
				n.shed()
			}
		}
	}
}

// puts reports whether the ring puts all names on the node of that id.
func (c *Client) puts(id string, names []string) bool {
	top := c.top.Load()
	return !slices.ContainsFunc(names, func(name string) bool { return top.nodes[top.ring.pick(name, nil)].id != id })
}
