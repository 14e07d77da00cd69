package standin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// operation is what a request does to its path, in Vault's words for them.
type operation string

const (
	opRead    operation = "read"
	opHead    operation = "header"
	opList    operation = "list"
	opScan    operation = "scan" // OpenBao's recursive list
	opCreate  operation = "create"
	opUpdate  operation = "update"
	opPatch   operation = "patch"
	opDelete  operation = "delete"
	opOptions operation = "options" // no path has it
)

// maxBody is Vault's default max_request_size.
// https://developer.hashicorp.com/vault/docs/configuration/listener/tcp
const maxBody = 32 << 20

// notValid is how Vault begins its refusal of a query or a list it cannot read.
const notValid = "Field validation failed"

// call is one parsed API request.
type call struct {
	op      operation
	method  string
	path    string // without "/v1/"; a list ends in "/"
	id      string // request_id
	now     time.Time
	secret  string // the client's token, as sent
	remote  string // the client's address
	token   *token // that token, once it is known to be good
	query   url.Values
	body    map[string]any
	wrapTTL time.Duration
	forward string   // X-Vault-Forward
	bao     bool     // OpenBao is asked
	noRaft  bool     // its storage has no raft index
	state   *state   // for lists that are filtered; while the call is planned
	fields  []string // the arguments that the path knows; nil: any
}

// parseCall reads the request as Vault's HTTP layer does; the answer is the
// refusal of a request that cannot be read.
func parseCall(r *http.Request, now time.Time, bao bool) (*call, *answer) {
	c := &call{
		method: r.Method, path: strings.TrimPrefix(r.URL.Path, "/v1/"), id: newUUID(), now: now,
		query: r.URL.Query(), secret: r.Header.Get("X-Vault-Token"), forward: r.Header.Get("X-Vault-Forward"), bao: bao,
		remote: r.RemoteAddr,
	}
	if c.secret == "" {
		if scheme, rest, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
			c.secret = strings.TrimSpace(rest)
		}
	}
	if v := r.Header.Get("X-Vault-Wrap-TTL"); v != "" {
		ttl, err := parseSeconds(v)
		if err != nil || ttl < 0 {
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf("error parsing X-Vault-Wrap-TTL header: time: invalid duration %q", v))
		}
		c.wrapTTL = ttl
	}
	switch method := r.Method; {
	case method == "SCAN" && bao:
		c.op = opScan
	case method == http.MethodGet && bao && c.query.Get("scan") == "true":
		c.op = opScan
		c.query.Del("scan")
	default:
		if a := c.operation(r); a != nil {
			return nil, a
		}
	}
	if (c.op == opList || c.op == opScan) && !strings.HasSuffix(c.path, "/") {
		c.path += "/"
	}
	if c.op == opUpdate || c.op == opPatch {
		if a := c.readBody(r.Body); a != nil {
			return nil, a
		}
		if strings.HasSuffix(c.path, "/") {
			return nil, refuse(http.StatusBadRequest, "cannot write to a path ending in '/'")
		}
	}
	return c, nil
}

// operation takes what a request does from its method.
func (c *call) operation(r *http.Request) *answer {
	switch r.Method {
	case http.MethodGet:
		c.op = opRead
		if v := c.query.Get("list"); v != "" {
			list, err := strconv.ParseBool(v)
			if err != nil {
				return refuse(http.StatusBadRequest)
			}
			if list {
				c.op = opList
			}
			c.query.Del("list")
		}
	case "LIST":
		c.op = opList
	case http.MethodHead:
		c.op = opHead
	case http.MethodDelete:
		c.op = opDelete
	case http.MethodPost, http.MethodPut:
		c.op = opUpdate
	case http.MethodPatch:
		c.op = opPatch
		const merge = "application/merge-patch+json"
		got, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil {
			return refuse(http.StatusBadRequest, err.Error())
		}
		if got != merge {
			return refuse(http.StatusUnsupportedMediaType, fmt.Sprintf("PATCH requires Content-Type of %s, provided %s", merge, got))
		}
	case http.MethodOptions:
		c.op = opOptions
	default:
		return refuse(http.StatusMethodNotAllowed)
	}
	return nil
}

func (c *call) readBody(body io.Reader) *answer {
	text, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err != nil {
		return refuse(http.StatusBadRequest, "error reading data")
	}
	if len(text) > maxBody {
		return refuse(http.StatusRequestEntityTooLarge, "error parsing JSON: failed to parse JSON input: http: request body too large")
	}
	if err := scanObject(text); err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	err = dec.Decode(&c.body)
	if err != nil && !errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "error parsing JSON: failed to parse JSON input: "+err.Error())
	}
	return nil
}

// scanObject walks a JSON object token by token, as Vault does ahead of
// decoding, and answers with 500 for what it trips over.
func scanObject(text []byte) error {
	text = bytes.TrimSpace(text)
	if len(text) == 0 || text[0] != '{' {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	for depth := 0; ; {
		tok, err := dec.Token()
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("malformed JSON, unclosed containers")
		case err != nil:
			return err
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			if rest := bytes.TrimSpace(text[dec.InputOffset():]); len(rest) > 0 {
				return fmt.Errorf("invalid character %q after top-level value", rest[0])
			}
			return nil
		}
	}
}

// mutates says that the call may change the state, so that it needs the
// writer's turn. Some calls that write are planned as reads of other things;
// what cannot change anything must not wait for a writer.
func (c *call) mutates() bool {
	switch c.op {
	case opRead, opHead, opList, opScan, opOptions:
		return false
	}
	return c.path != "sys/capabilities-self" && c.path != "sys/capabilities"
}

// arg is a field of the body, or of the query where requests have no body.
func (c *call) arg(name string) (any, bool) {
	switch c.op {
	case opUpdate, opCreate, opPatch:
		v, ok := c.body[name]
		return v, ok
	}
	if !c.query.Has(name) {
		return nil, false
	}
	return c.query.Get(name), true
}

// ignored names the arguments that the path does not know.
func (c *call) ignored() []string {
	if c.fields == nil {
		return nil
	}
	var unknown []string
	for name := range c.query {
		if c.op == opRead || c.op == opList || c.op == opDelete {
			unknown = append(unknown, name)
		}
	}
	unknown = slices.AppendSeq(unknown, maps.Keys(c.body))
	unknown = slices.DeleteFunc(unknown, func(name string) bool { return slices.Contains(c.fields, name) })
	slices.Sort(unknown)
	return unknown
}

// text is an argument as a string, empty when it is not there.
func (c *call) text(name string) string {
	v, _ := c.arg(name)
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// number is an argument as a whole number; ok is false when it is absent.
func (c *call) number(name string) (n int64, ok bool, err error) {
	v, ok := c.arg(name)
	if !ok {
		return 0, false, nil
	}
	if all := c.query[name]; c.body == nil && len(all) > 1 {
		return 0, true, fmt.Errorf("%s: error converting input for field %q: '' expected type 'int', got unconvertible type '[]string', value: '%v'", notValid, name, all)
	}
	n, err = wholeNumber(v)
	if err != nil {
		err = fmt.Errorf("error converting input for field %q: cannot parse '' as int: %w", name, err)
		if c.body == nil {
			err = fmt.Errorf("%s: %w", notValid, err)
		}
		return 0, true, err
	}
	return n, true, nil
}

// strings is an argument as a list: a JSON array, or text with commas.
func (c *call) strings(name string) []string {
	v, _ := c.arg(name)
	switch v := v.(type) {
	case string:
		if v == "" {
			return nil
		}
		return strings.Split(v, ",")
	case []any:
		var out []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

// numbers is an argument as a list of whole numbers.
func (c *call) numbers(name string) ([]uint64, error) {
	v, _ := c.arg(name)
	var items []any
	switch v := v.(type) {
	case nil:
	case []any:
		items = v
	case string:
		for _, s := range strings.Split(v, ",") {
			items = append(items, s)
		}
	default:
		items = []any{v}
	}
	out := make([]uint64, 0, len(items))
	for i, it := range items {
		n, err := wholeNumber(it)
		if err != nil {
			return nil, fmt.Errorf("%s: error converting input for field %q: 1 error(s) decoding:\n\n* cannot parse '[%d]' as int: %w", notValid, name, i, err)
		}
		if n > 0 {
			out = append(out, uint64(n))
		}
	}
	return out, nil
}

func wholeNumber(v any) (int64, error) {
	switch v := v.(type) {
	case json.Number:
		return v.Int64()
	case string:
		return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
	}
	return 0, fmt.Errorf("expected a number, got %T", v)
}

// seconds is an argument as a duration of whole seconds; ok is false when it
// is absent.
func (c *call) seconds(name string) (d time.Duration, ok bool, err error) {
	v, ok := c.arg(name)
	if !ok {
		return 0, false, nil
	}
	switch v := v.(type) {
	case string:
		d, err = parseSeconds(v)
	case json.Number:
		d, err = parseSeconds(v.String())
	default:
		err = fmt.Errorf("expected a duration, got %T", v)
	}
	if err != nil {
		return 0, true, fmt.Errorf("error converting input for field %q: %w", name, err)
	}
	return d.Truncate(time.Second), true, nil
}

// parseSeconds reads a duration as Vault does: "5m", "1d", or bare seconds.
func parseSeconds(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("time: invalid duration %q", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(s)
}
