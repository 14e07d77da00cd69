package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// versions bounds how many versions a KV v2 secret gets before its metadata is
// deleted, so that each of them can be looked at after each write.
const versions = 4

// sender sends a request to Vault: to it directly, or through a proxy.
type sender func(ctx context.Context, c harness.Call) (*harness.Response, error)

// object is one secret of the world that the soak test writes and reads.
//
// Writes of an ordered object take turns, and after each of them Vault is asked
// what all resources of the object answer now: that, byte for byte, is what a
// read has to get. A race object is written by several at once; its values are
// unique, and only the value is compared.
type object struct {
	mount  string // secret (KV v2) or kv (KV v1)
	folder string
	name   string
	race   bool

	mu sync.Mutex // held over a write and the look at what it made; not for race objects
	n  int        // guarded by mu; writes so far
}

func (o *object) path() string     { return o.folder + "/" + o.name }
func (o *object) v2() bool         { return o.mount == "secret" }
func (o *object) resource() string { return o.mount + " " + o.path() }

// data is the API path of the secret itself.
func (o *object) data() string {
	if o.v2() {
		return o.mount + "/data/" + o.path()
	}
	return o.mount + "/" + o.path()
}

// listing is the API path of the list of the object's folder.
func (o *object) listing() string {
	if o.v2() {
		return o.mount + "/metadata/" + o.folder
	}
	return o.mount + "/" + o.folder
}

// views are the API paths of all that an ordered object answers, but the list.
func (o *object) views() []string {
	if !o.v2() {
		return []string{o.data()}
	}
	out := []string{o.data(), o.mount + "/metadata/" + o.path(), o.mount + "/subkeys/" + o.path()}
	for n := range versions {
		out = append(out, fmt.Sprintf("%s?version=%d", o.data(), n+1))
	}
	return out
}

// member is the resource "the list of its folder has the object in it".
func (o *object) member() string { return "in the list " + o.listing() + ": " + o.name }

// canonical is an answer without what differs between two answers to the same
// question: the request_id, which Vault sends first
// (https://developer.hashicorp.com/vault/api-docs#api-operations).
func canonical(status int, body []byte) string {
	if rest, ok := bytes.CutPrefix(body, []byte(`{"request_id":"`)); ok {
		if _, after, ok := bytes.Cut(rest, []byte(`"`)); ok {
			body = after
		}
	}
	return fmt.Sprint(status, " ", string(bytes.TrimSpace(body)))
}

// members are the names in a list's answer; a list of nothing is a 404.
func members(r *harness.Response) (map[string]bool, error) {
	out := map[string]bool{}
	if r.Status == http.StatusNotFound {
		return out, nil
	}
	var body struct {
		Data struct{ Keys []string }
	}
	if err := r.JSON(&body); err != nil || r.Status != http.StatusOK {
		return nil, fmt.Errorf("a list answered %d %.200s", r.Status, r.Body)
	}
	for _, k := range body.Data.Keys {
		out[k] = true
	}
	return out, nil
}

// valueOf is what is compared of a race object's answer.
func valueOf(r *harness.Response) string {
	return fmt.Sprint(r.Status, " ", answer{Response: r}.value())
}

// write is one request that changes an object.
type write struct {
	method string
	path   string
	body   any
}

// next chooses a write. o.mu is held for ordered objects.
func (o *object) next(random *rand.Rand) write {
	data := map[string]any{"password": secret(), "user": fmt.Sprint("u", o.n%3)}
	o.n++
	if !o.v2() {
		if !o.race && random.IntN(4) == 0 {
			return write{http.MethodDelete, o.data(), nil}
		}
		return write{http.MethodPut, o.data(), data}
	}
	put := write{http.MethodPost, o.data(), map[string]any{"data": data}}
	if o.race {
		return put
	}
	metadata := o.mount + "/metadata/" + o.path()
	some := map[string]any{"versions": []int{1 + random.IntN(versions), 1 + random.IntN(versions)}}
	custom := map[string]any{"custom_metadata": map[string]string{"owner": fmt.Sprint("team", o.n)}}
	choices := []struct {
		weight int
		write  write
	}{
		{40, put},
		{10, write{http.MethodPatch, o.data(), map[string]any{"data": map[string]any{"password": secret()}}}},
		{10, write{http.MethodDelete, o.data(), nil}},
		{8, write{http.MethodPost, o.mount + "/delete/" + o.path(), some}},
		{10, write{http.MethodPost, o.mount + "/undelete/" + o.path(), some}},
		{5, write{http.MethodPost, o.mount + "/destroy/" + o.path(), some}},
		{8, write{http.MethodPatch, metadata, custom}},
		{4, write{http.MethodPost, metadata, map[string]any{"max_versions": 2 + random.IntN(3)}}},
		{5, write{http.MethodDelete, metadata, nil}},
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	at := random.IntN(total)
	for _, c := range choices {
		if at -= c.weight; at < 0 {
			return c.write
		}
	}
	return put
}

// change sends one write to an object and records what came of it. Its error
// says that the outcome is not known, after which nothing can be judged.
func (w *world) change(ctx context.Context, o *object, random *rand.Rand, send sender) (path string, end time.Time, err error) {
	if o.race {
		return w.changeRace(ctx, o, random, send)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	next := o.next(random)
	if o.v2() && w.latest(o) >= versions && next.method == http.MethodPost && next.path == o.data() {
		next = write{http.MethodDelete, o.mount + "/metadata/" + o.path(), nil}
	}
	begin := time.Now()
	if err := submit(ctx, next, send); err != nil {
		return next.path, begin, err
	}
	end = time.Now()
	w.writes.Add(1)
	return next.path, end, w.look(ctx, o, begin, end)
}

// changeRace is change for race objects.
func (w *world) changeRace(ctx context.Context, o *object, random *rand.Rand, send sender) (path string, end time.Time, err error) {
	o.mu.Lock()
	next := o.next(random)
	o.mu.Unlock()
	data := next.body.(map[string]any)
	if inner, ok := data["data"].(map[string]any); ok {
		data = inner
	}
	begin := time.Now()
	if err := submit(ctx, next, send); err != nil {
		return next.path, begin, err
	}
	end = time.Now()
	w.writes.Add(1)
	w.checker.Wrote(o.resource(), "200 "+data["password"].(string), begin, end)
	return next.path, end, nil
}

// submit sends a write. A refusal (4xx) is an outcome: nothing changed.
func submit(ctx context.Context, next write, send sender) error {
	c := harness.Call{Method: next.method, Path: next.path, Body: next.body}
	if next.method == http.MethodPatch {
		c.Header = http.Header{"Content-Type": {"application/merge-patch+json"}}
		text, err := json.Marshal(next.body)
		if err != nil {
			return err
		}
		c.Body = text
	}
	r, err := send(ctx, c)
	if err == nil && r.Status >= 500 {
		err = fmt.Errorf("status %d: %s", r.Status, r.Body)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", next.method, next.path, err)
	}
	return nil
}

// look asks Vault what every resource of the object answers, after a write
// between begin and end. o.mu is held.
func (w *world) look(ctx context.Context, o *object, begin, end time.Time) error {
	for _, path := range o.views() {
		r, err := w.root(ctx, harness.Call{Method: http.MethodGet, Path: path})
		if err != nil {
			return err
		}
		w.checker.Wrote(path, canonical(r.Status, r.Body), begin, end)
		if strings.Contains(path, "/metadata/") {
			w.noteLatest(o, r)
		}
	}
	r, err := w.root(ctx, harness.Call{Method: "LIST", Path: o.listing()})
	if err != nil {
		return err
	}
	names, err := members(r)
	if err != nil {
		return err
	}
	w.checker.Wrote(o.member(), fmt.Sprint(names[o.name]), begin, end)
	return nil
}

// noteLatest remembers the current version that metadata name.
func (w *world) noteLatest(o *object, r *harness.Response) {
	var body struct {
		Data struct {
			Current int `json:"current_version"`
		}
	}
	_ = json.Unmarshal(r.Body, &body) // a 404 has none: 0
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current[o] = body.Data.Current
}

func (w *world) latest(o *object) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current[o]
}

// pick is a random one of the list.
func pick[T any](random *rand.Rand, list []T) T { return list[random.IntN(len(list))] }

// folderOf are the ordered objects in the same list as o.
func (w *world) folderOf(o *object) []*object {
	return slices.Collect(func(yield func(*object) bool) {
		for _, other := range w.objects {
			if !other.race && other.listing() == o.listing() && !yield(other) {
				return
			}
		}
	})
}
