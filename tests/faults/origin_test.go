package faults

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// recorder takes an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newRecorder() *recorder { return &recorder{header: http.Header{}, status: http.StatusOK} }

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// caller finds the instance and its incarnation in the name of its link.
func caller(r *http.Request) (inst, inc int) {
	fmt.Sscanf(r.RemoteAddr, "%d.%d", &inst, &inc)
	return inst, inc
}

// pause waits, or until the client is gone.
func pause(r *http.Request, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// serve is the origin as the instances see it: the stand-in behind a network
// that takes its time, and with the trouble of the moment.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	inst, inc := caller(r)
	w.mu.Lock()
	x := w.slots[inst]
	trouble := w.mode[inst]
	w.mu.Unlock()
	body, err := io.ReadAll(r.Body) // only then the server sees a client that leaves
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	fly := func(n int32) {
		// What verifies everything takes no slot, so as not to queue behind it.
		if x.inc == inc && r.URL.Path != "/v1/sys/leader" && r.URL.Path != "/v1/sys/health" {
			x.flying.Add(n)
		}
	}
	fly(1)
	defer fly(-1)
	_, index := w.asker(inst, inc, r)
	w.spent(inst, index, r)
	d := w.dice(fmt.Sprint(inst, r.Method, r.URL))
	there, back := d.lag(), d.lag()
	w.trace("origin: %d.%d %s %s", inst, inc, r.Method, r.URL)
	switch trouble {
	case slow:
		there, back = time.Duration(d.IntN(900))*time.Millisecond, time.Duration(d.IntN(900))*time.Millisecond
	case limited:
		if d.IntN(2) == 0 {
			rw.Header().Set("Retry-After", strconv.Itoa(1+d.IntN(3)))
		}
		rw.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(rw, `{"errors":["request path \"x\": rate limit quota exceeded"]}`)
		return
	case quota:
		if _, index := w.asker(inst, inc, r); index >= 0 && r.URL.Path != "/v1/auth/token/revoke-self" {
			rw.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(rw, `{"errors":["request path \"x\": rate limit quota exceeded"]}`)
			return
		}
	case failing:
		pause(r, there)
		rw.WriteHeader([]int{500, 502, 503, 504}[d.IntN(4)])
		fmt.Fprint(rw, `{"errors":["local node not active but active cluster node not found"]}`)
		return
	case babble:
		pause(r, there)
		babbling(rw, d.IntN(9))
		return
	}
	pause(r, there)
	var rec *recorder
	if changes(r) || w.counted(index) { // each use is counted by a write
		write, _ := strconv.Atoi(r.Header.Get(writeHeader))
		var resources []string
		if s := w.secretOf(r.URL.Path); s != nil {
			resources = s.resources()
		}
		fly(-1) // whoever left meanwhile waits for its turn all the same
		w.change(write, resources, func() {
			if rec = w.answer(r); strings.Contains(r.URL.Path, "/auth/token/revoke") {
				w.reap()
			}
		})
		fly(1)
	} else {
		rec = w.answer(r)
	}
	w.trace("origin: %d.%d %s %s is %d", inst, inc, r.Method, r.URL, rec.status)
	w.answered(inst, inc, r, rec.status)
	pause(r, back)
	if rec.status == http.StatusForbidden { // it takes what is read alike, too
		_, index := w.asker(inst, inc, r)
		w.forget(func(k warmth) bool { return k.token == index && (k.inst == inst || index < 0) })
	}
	for k, v := range rec.header {
		rw.Header()[k] = v
	}
	rw.WriteHeader(rec.status)
	_, err = rw.Write(rec.body.Bytes())
	if err == nil && rec.status == http.StatusOK && r.URL.Path == "/v1/auth/token/lookup-self" && r.Context().Err() == nil {
		w.tell(process{inst, inc}, r.Header.Get("X-Vault-Token"))
	}
}

// role is the policy of instance n's own identity.
func (w *world) role(n int) int {
	if w.setup.Roles && n%2 == 1 {
		return otherRole
	}
	return 0
}

// whose names the identity that an instance reads under: a caller's token there, or its
// role, which instances share if they share anything.
func (w *world) whose(inst, inc, token int) string {
	switch {
	case token >= 0:
		return fmt.Sprintf("token %d at %d.%d", token, inst, inc)
	case w.setup.Shared:
		return fmt.Sprint("role ", w.role(inst))
	}
	return fmt.Sprintf("instance %d.%d", inst, inc)
}

// asker is the identity of a request at the origin.
func (w *world) asker(inst, inc int, r *http.Request) (who string, token int) {
	w.mu.Lock()
	token, caller := w.index[r.Header.Get("X-Vault-Token")]
	w.mu.Unlock()
	if !caller {
		token = -1
	}
	return w.whose(inst, inc, token), token
}

// answered notes what a read makes.
func (w *world) answered(inst, inc int, r *http.Request, status int) {
	if status != http.StatusOK && status != http.StatusNotFound || changes(r) {
		return
	}
	method, query := r.Method, r.URL.RawQuery
	if query == "list=true" {
		method, query = "LIST", ""
	}
	resource := method + " " + strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	if query != "" {
		resource += "?" + query
	}
	who, _ := w.asker(inst, inc, r)
	m := w.moment()
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.h.reads[inst] = append(w.h.reads[inst], m)
	b := birth{who, resource, r.Header.Get("X-Vault-Namespace")}
	if _, ok := w.h.born[b]; !ok {
		w.h.born[b] = m
	}
}

// born is when the capability that an answer needed was made, if it was by its end.
func (w *world) born(a *answer) (moment, bool) {
	m, ok := w.h.born[birth{w.whose(a.inst, a.inc, a.token), a.resource, a.namespace}]
	return m, ok && m.seq < a.end.seq
}

// changes says that a request can change the origin's state.
func changes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, "LIST":
		return r.Header.Get("X-Vault-Wrap-Ttl") != ""
	}
	return r.URL.Path != "/v1/sys/capabilities-self"
}

// garbage marks what no Vault ever answers.
const garbage = "GARBAGE"

// babbling answers as something else in between does.
func babbling(rw http.ResponseWriter, how int) {
	switch how {
	case 0:
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprint(rw, "<html>"+garbage+"</html>")
	case 1: // cut short
		rw.Header().Set("Content-Length", "500")
		fmt.Fprint(rw, `{"request_id":"`+garbage)
	case 2:
		rw.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(rw, garbage)
	case 3:
		rw.Header().Set("Location", "http://10.9.9.9:8200/"+garbage)
		rw.WriteHeader(http.StatusFound)
	case 4: // not HTTP at all
		if c, _, err := http.NewResponseController(rw).Hijack(); err == nil {
			fmt.Fprint(c, garbage+"\r\n\r\n")
			c.Close()
		}
	case 5:
		rw.WriteHeader(http.StatusOK)
		fmt.Fprint(rw, `["`+garbage+`"]`)
	case 6: // as a mock does
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprint(rw, `{"data":{"data":{"v":"`+garbage+`"},"metadata":{"version":1},"keys":["`+garbage+`"]}}`)
	case 7: // a maintenance page for machines
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprint(rw, `{"status":"`+garbage+`"}`)
	case 8: // a gateway without a route
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(http.StatusNotFound)
		fmt.Fprint(rw, `{"message":"`+garbage+`"}`)
	}
}

// secretOf is the secret that a path of a write is about.
func (w *world) secretOf(path string) *secret {
	rest := strings.TrimPrefix(path, "/v1/")
	for _, s := range w.secrets {
		if !strings.HasPrefix(rest, s.mount+"/") {
			continue
		}
		if below := strings.TrimPrefix(rest, s.mount+"/"); !s.v2 && below == s.key() {
			return s
		} else if s.v2 {
			if _, key, _ := strings.Cut(below, "/"); key == s.key() {
				return s
			}
		}
	}
	return nil
}
