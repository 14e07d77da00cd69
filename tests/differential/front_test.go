package differential

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
)

// mark is in every foreign answer that has a body.
const mark = "NOT-VAULT"

// foreign is one kind of answer that is not Vault's.
type foreign struct {
	name   string
	answer func(w http.ResponseWriter, status int)
}

// away is the kind of an origin that is not there.
const away = 0

// kinds are the kinds of foreign answers. Each comes with all statuses, where it
// has one.
var kinds = []foreign{
	{"nothing, and a closed connection", func(w http.ResponseWriter, _ int) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			c.Close()
		}
	}},
	{"HTML", func(w http.ResponseWriter, status int) {
		send(w, status, "text/html", "<html><body>"+mark+"</body></html>")
	}},
	{"JSON of another shape", func(w http.ResponseWriter, status int) {
		send(w, status, "application/json", `{"message":"`+mark+`","code":7}`)
	}},
	{"a list", func(w http.ResponseWriter, status int) {
		send(w, status, "application/json", `["`+mark+`"]`)
	}},
	{"errors that are no list", func(w http.ResponseWriter, status int) {
		send(w, status, "application/json", `{"errors":{"reason":"`+mark+`"}}`)
	}},
	{"data without request_id", func(w http.ResponseWriter, status int) {
		send(w, status, "application/json", `{"data":{"data":{"value":"`+mark+`"}}}`)
	}},
	{"empty", func(w http.ResponseWriter, status int) {
		w.WriteHeader(status)
	}},
	{"JSON that is called HTML", func(w http.ResponseWriter, status int) {
		send(w, status, "text/html", `{"note":"`+mark+`"}`)
	}},
	{"cut short", func(w http.ResponseWriter, status int) {
		w.Header().Set("Content-Length", "900")
		send(w, status, "application/json", `{"request_id":"`+mark)
	}},
	{"half of JSON", func(w http.ResponseWriter, status int) {
		send(w, status, "application/json", `{"request_id":"`+mark+`","data":{`)
	}},
	{"a login page", func(w http.ResponseWriter, _ int) {
		w.Header().Set("Location", "http://login.test/"+mark)
		send(w, http.StatusFound, "text/html", mark)
	}},
}

func send(w http.ResponseWriter, status int, kind, body string) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	if status != http.StatusNoContent && status != http.StatusNotModified {
		_, _ = w.Write([]byte(body)) // whoever is gone wants none
	}
}

// statuses are those that a front may answer with.
func statuses(r *rand.Rand) int {
	common := []int{200, 204, 400, 401, 403, 404, 405, 408, 413, 421, 425, 429, 431, 460, 499, 500, 502, 503, 504, 520}
	if r.IntN(3) > 0 {
		return common[r.IntN(len(common))]
	}
	return 200 + r.IntN(400)
}

// front stands before an origin and answers in its place while it has trouble.
type front struct {
	origin http.Handler

	mu      sync.Mutex // guards the fields below
	trouble *foreign
	status  int
	spared  string // path prefix that reaches the origin all the same; empty: none
}

func (f *front) set(trouble *foreign, status int, spared string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble, f.status, f.spared = trouble, status, spared
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	trouble, status, spared := f.trouble, f.status, f.spared
	f.mu.Unlock()
	if trouble == nil || spared != "" && strings.HasPrefix(r.URL.Path, spared) {
		f.origin.ServeHTTP(w, r)
		return
	}
	trouble.answer(w, status)
}

func (f *front) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble == nil {
		return "no trouble"
	}
	return fmt.Sprintf("%s with %d", f.trouble.name, f.status)
}
