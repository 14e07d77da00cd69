package lambda

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// client speaks the Extensions API, apart from the client of this project.
type client struct{ api, name, id string }

// reply is what the API answered.
type reply struct {
	status int
	head   http.Header
	doc    map[string]any
}

func (c *client) call(method, path, body string, head ...string) (reply, error) {
	req, err := http.NewRequest(method, "http://"+c.api+"/2020-01-01/extension/"+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if c.id != "" {
		req.Header.Set("Lambda-Extension-Identifier", c.id)
	}
	for i := 0; i < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	r := reply{status: resp.StatusCode, head: resp.Header}
	if e := json.Unmarshal(text, &r.doc); e != nil {
		r.doc = map[string]any{"text": string(text)}
	}
	return r, err
}

// register registers for all that the platform offers, and keeps the identifier.
func (c *client) register(events string) (reply, error) {
	r, err := c.call(http.MethodPost, "register", `{"events":[`+events+`]}`, "Lambda-Extension-Name", c.name)
	if id := r.head.Get("Lambda-Extension-Identifier"); err == nil && id != "" {
		c.id = id
	}
	return r, err
}

// accompany is a second extension, which reads through the first at each INVOKE and prints what it got.
func accompany(api string) int {
	c := client{api: api, name: peerName}
	if r, err := c.register(`"INVOKE","SHUTDOWN"`); err != nil || r.status != http.StatusOK {
		fmt.Println("peer: register:", r.status, err)
		return 1
	}
	var f function
	for {
		event, err := c.call(http.MethodGet, "event/next", "")
		if err != nil || event.status != http.StatusOK {
			fmt.Println("peer: next:", event.status, err)
			return 1
		}
		if event.doc["eventType"] == "SHUTDOWN" {
			fmt.Println("peer: shutdown:", event.doc["shutdownReason"])
			return 0
		}
		id, _ := event.doc["requestId"].(string)
		got := f.read(step{Read: app, Named: id}, nil)
		fmt.Printf("peer: read %q, status %d, for %s\n", got.Value, got.Status, id)
	}
}
