package standin

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
)

// write does a write on the primary's active node and answers with its state.
func (n *Node) write(w http.ResponseWriter, r *http.Request, body []byte) {
	root := n.c
	for root.primary != nil {
		root = root.primary
	}
	res, index := root.commit(r, body)
	for k, vs := range res.Header() {
		w.Header()[k] = vs
	}
	if index > 0 && !n.c.o.OpenBao {
		// "all requests that modify storage now return" it
		w.Header().Set(indexHeader, n.c.stateOf(index))
	}
	w.WriteHeader(res.Code)
	w.Write(res.Body.Bytes())
}

// commit does one write, after all others, and returns its index; 0: it changed
// nothing.
func (c *Cluster) commit(r *http.Request, body []byte) (*httptest.ResponseRecorder, uint64) {
	c.log.writing.Lock()
	defer c.log.writing.Unlock()
	e := c.before(r)
	was := c.raft(r)
	r.Body = io.NopCloser(bytes.NewReader(body))
	res := c.ask(r)
	if res.Code >= http.StatusBadRequest || was == c.raft(r) {
		return res, 0
	}
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
			TokenType   string `json:"token_type"`
		} `json:"auth"`
	}
	var tokens []string
	if json.Unmarshal(res.Body.Bytes(), &answer) == nil && answer.Auth.ClientToken != "" && answer.Auth.TokenType != "batch" &&
		answer.Auth.ClientToken != tokenOf(r) {
		tokens = append(tokens, answer.Auth.ClientToken)
	}
	index := c.log.add(e, tokens...)
	c.publish(r, index)
	return res, index
}

// raft is the origin's committed index.
func (c *Cluster) raft(r *http.Request) uint64 {
	var l struct {
		Committed uint64 `json:"raft_committed_index"`
	}
	res := c.get(r, "sys/leader")
	if json.Unmarshal(res.Body.Bytes(), &l) != nil || l.Committed == 0 {
		panic("the stand-in needs an origin with integrated storage")
	}
	return l.Committed
}

// get reads from the origin with the root token, in the request's namespace.
func (c *Cluster) get(r *http.Request, path string) *httptest.ResponseRecorder {
	own := httptest.NewRequestWithContext(r.Context(), http.MethodGet, "http://vault/v1/"+path, nil)
	own.RequestURI = ""
	own.Header.Set("X-Vault-Token", c.o.RootToken)
	if ns := r.Header.Get("X-Vault-Namespace"); ns != "" {
		own.Header.Set("X-Vault-Namespace", ns)
	}
	w := httptest.NewRecorder()
	c.o.Origin.ServeHTTP(w, own)
	return w
}

// before reads what a write can change: for KV version 2 the data, metadata and
// subkeys of the key and the lists above it, with metadata and without, else the path
// and the lists above.
func (c *Cluster) before(r *http.Request) entry {
	path := strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	e := entry{before: make(map[string]*saved)}
	first, _, _ := strings.Cut(path, "/")
	if first == "sys" || first == "auth" || first == "identity" {
		return e
	}
	lists := ""
	mount, rest, _ := strings.Cut(path, "/")
	switch kind, key, _ := strings.Cut(rest, "/"); kind {
	case "data", "metadata", "subkeys", "delete", "undelete", "destroy":
		e.paths = []string{mount + "/data/" + key, mount + "/metadata/" + key, mount + "/subkeys/" + key}
		lists = mount + "/metadata/" + key
	default:
		e.paths = []string{path}
		lists = path
	}
	for _, p := range e.paths {
		if !strings.Contains(p, "/subkeys/") {
			e.save(c, r, p)
		}
	}
	for i := strings.LastIndexByte(lists, '/'); i > 0; i = strings.LastIndexByte(lists[:i], '/') {
		above := []string{lists[:i]}
		if folder, ok := strings.CutPrefix(lists[:i], mount+"/metadata"); ok {
			above = append(above, mount+"/detailed-metadata"+folder)
		}
		for _, p := range above {
			e.save(c, r, p+"?list=true")
			e.paths = append(e.paths, p+"?list")
		}
	}
	return e
}

func (e entry) save(c *Cluster, r *http.Request, path string) {
	res := c.get(r, path)
	e.before[r.Header.Get("X-Vault-Namespace")+" "+path] = &saved{res.Code, res.Header(), res.Body.Bytes()}
}

// line names a read as save does.
func line(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	query := r.URL.RawQuery
	if r.Method == "LIST" || query == "list=true" {
		path, query = strings.TrimRight(path, "/"), "list=true"
	}
	if query != "" {
		path += "?" + query
	}
	return r.Header.Get("X-Vault-Namespace") + " " + path
}

// resource is what a read is about, whatever its parameters.
func resource(r *http.Request) string {
	path := strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	if r.Method == "LIST" || r.URL.Query().Get("list") == "true" {
		return path + "?list"
	}
	return path
}
