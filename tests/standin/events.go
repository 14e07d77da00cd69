package standin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/coder/websocket"
)

// bus is the event system of a cluster's active node.
type bus struct {
	mu   sync.Mutex
	subs map[*subscription]bool        // guarded by mu
	stop bool                          // guarded by mu
	hook func(message []byte) [][]byte // guarded by mu; see Disturb
}

// subscription is one websocket.
type subscription struct {
	pattern string
	in      string // the namespace that it was asked for in
	below   bool   // namespaces=*: those below, too
	send    chan []byte
	cut     context.CancelFunc
}

// queued is how many events a slow subscriber may be behind. Vault drops what
// comes then: delivery is best effort
// (https://developer.hashicorp.com/vault/docs/concepts/events).
const queued = 256

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stop = true
	for s := range b.subs {
		s.cut()
	}
}

// Disturb has f decide what is sent of each event: nothing (it is dropped), it
// twice, something else. nil: it as it is.
func (c *Cluster) Disturb(f func(message []byte) [][]byte) {
	c.events.mu.Lock()
	defer c.events.mu.Unlock()
	c.events.hook = f
}

// CutEvents ends every subscription, as when the active node goes away.
func (c *Cluster) CutEvents() {
	c.events.mu.Lock()
	defer c.events.mu.Unlock()
	for s := range c.events.subs {
		s.cut()
	}
}

// Subscribers is how many there are.
func (c *Cluster) Subscribers() int {
	c.events.mu.Lock()
	defer c.events.mu.Unlock()
	return len(c.events.subs)
}

// subscribe is handleEventsSubscribe of http/events.go in hashicorp/vault before
// it moved to Enterprise (1.16). A performance standby redirects: the updater in
// command/agentproxyshared/cache/static_secret_cache_updater.go of v1.21.0
// follows up to ten 307.
func (n *Node) subscribe(w http.ResponseWriter, r *http.Request, pattern string) {
	switch {
	case n.c.o.NoEvents || n.c.o.OpenBao:
		refuseAt(w, http.StatusNotFound, "unsupported path")
		return
	case len(r.Header.Values("X-Vault-Token")) != 1:
		n.c.count("tokens beside each other")
		refuseAt(w, http.StatusBadRequest, "the stand-in takes one token")
		return
	case !n.leads():
		n.redirect(w, r)
		return
	case !n.may(r, "sys/events/subscribe/"+pattern):
		refuseAt(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	case strings.TrimSpace(pattern) == "":
		refuseAt(w, http.StatusBadRequest, "did not specify eventType to subscribe to")
		return
	case r.URL.Query().Get("json") != "true":
		refuseAt(w, http.StatusBadRequest, "the stand-in speaks JSON only")
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	ctx, cut := context.WithCancel(conn.CloseRead(context.WithoutCancel(r.Context())))
	defer cut()
	s := &subscription{pattern: pattern, in: namespaceOf(r), below: r.URL.Query().Get("namespaces") == "*", send: make(chan []byte, queued), cut: cut}
	b := &n.c.events
	b.mu.Lock()
	if b.stop {
		b.mu.Unlock()
		conn.CloseNow()
		return
	}
	if b.subs == nil {
		b.subs = make(map[*subscription]bool)
	}
	b.subs[s] = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.subs, s)
		b.mu.Unlock()
		conn.CloseNow()
	}()
	for {
		select {
		case message := <-s.send:
			if conn.Write(ctx, websocket.MessageText, message) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// namespaceOf is the namespace that a request names; empty: root.
func namespaceOf(r *http.Request) string { return strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") }

// covers reports whether a subscription gets the events of a namespace: its own, and
// those below it that its patterns match
// (https://developer.hashicorp.com/vault/api-docs/system/events#subscribe-to-event-notifications).
func (s *subscription) covers(namespace string) bool {
	return namespace == s.in || s.below && (s.in == "" || strings.HasPrefix(namespace, s.in+"/"))
}

// may asks the origin whether the request's token may read a path.
func (n *Node) may(r *http.Request, apiPath string) bool {
	body := fmt.Sprintf(`{"paths":[%q]}`, apiPath)
	own, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), http.MethodPost, "http://vault/v1/sys/capabilities-self", strings.NewReader(body))
	if err != nil {
		return false
	}
	own.Header.Set("X-Vault-Token", tokenOf(r))
	res := n.c.ask(own)
	return res.Code == http.StatusOK && (strings.Contains(res.Body.String(), `"read"`) || strings.Contains(res.Body.String(), `"root"`))
}

// publish sends the event of a write, as kvEvent in backend.go of
// hashicorp/vault-plugin-secrets-kv v0.25.0 and the bus make it
// (vault/eventbus/bus.go).
func (c *Cluster) publish(r *http.Request, index uint64) {
	api := strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	mount, rest, _ := strings.Cut(api, "/")
	if mount == "sys" || mount == "auth" || mount == "identity" {
		return
	}
	kind, key, _ := strings.Cut(rest, "/")
	remove := r.Method == http.MethodDelete
	typ := ""
	switch kind {
	case "data", "metadata":
		typ = "kv-v2/" + kind + map[bool]string{true: "-delete", false: "-write"}[remove]
		if r.Method == http.MethodPatch {
			typ = "kv-v2/" + kind + "-patch"
		}
	case "delete", "undelete", "destroy":
		typ = "kv-v2/" + kind
	case "config":
		typ = "kv-v2/config-write"
	default:
		typ = "kv-v1/" + map[bool]string{true: "delete", false: "write"}[remove]
	}
	metadata := map[string]string{
		"modified": "true", "operation": path.Base(typ), "path": api, "vault_index": c.stateOf(index),
	}
	if c.o.OldEvents {
		delete(metadata, "vault_index")
	}
	if (kind == "data" || strings.HasPrefix(typ, "kv-v1")) && !remove {
		metadata["data_path"] = mount + "/data/" + key
		if strings.HasPrefix(typ, "kv-v1") {
			metadata["data_path"] = api
		}
	}
	namespace := namespaceOf(r)
	named := namespace
	if named != "" {
		named += "/"
	}
	message, err := json.Marshal(map[string]any{
		"id": fmt.Sprint(index), "source": "vault://fake", "specversion": "1.0", "type": "*", "datacontentype": "application/cloudevents",
		"time": c.o.Now().Format("2006-01-02T15:04:05.999999Z07:00"),
		"data": map[string]any{
			"event":      map[string]any{"id": fmt.Sprint(index), "metadata": metadata},
			"event_type": typ, "namespace": named, "plugin_info": map[string]string{"mount_class": "secret", "mount_path": mount + "/", "plugin": "kv"},
		},
	})
	if err != nil {
		panic(err) // maps of texts are JSON
	}
	messages := [][]byte{append(message, '\n')}
	c.events.mu.Lock()
	defer c.events.mu.Unlock()
	if c.events.hook != nil {
		messages = c.events.hook(messages[0])
	}
	for s := range c.events.subs {
		if ok, err := path.Match(strings.ReplaceAll(s.pattern, "/", "-"), strings.ReplaceAll(typ, "/", "-")); err != nil || !ok || !s.covers(namespace) {
			continue
		}
		for _, m := range messages {
			select {
			case s.send <- m:
			default: // dropped
			}
		}
	}
}
