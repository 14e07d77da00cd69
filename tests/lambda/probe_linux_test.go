package lambda

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// probe is an extension that does what none should, and prints what the API
// answers, without what differs from run to run. The same calls go to AWS's
// emulator and to our stand-in.
func probe(api string, out io.Writer) int {
	p := prober{client: client{api: api, name: probeName}, out: out}
	p.await()
	switch os.Getenv("PROBE") {
	case "init-error":
		p.say("register", p.enrol(`"INVOKE","SHUTDOWN"`))
		p.say("init error", p.report("init/error", "Probe.Init", `{"errorMessage":"m","errorType":"Probe.Init","stackTrace":[]}`))
		p.say("init error twice", p.report("init/error", "Probe.Init", ""))
		p.say("next after an init error", p.ask(http.MethodGet, "event/next", ""))
		p.say("exit error after an init error", p.report("exit/error", "Probe.Exit", ""))
		return 1
	case "exit-error":
		p.say("register", p.enrol(`"INVOKE","SHUTDOWN"`))
		p.say("exit error", p.report("exit/error", "Probe.Exit", `{"errorMessage":"m","errorType":"Probe.Exit","stackTrace":[]}`))
		p.say("next after an exit error", p.ask(http.MethodGet, "event/next", ""))
		return 1
	}
	p.unregistered()
	if p.registered() {
		p.take("INVOKE")
	}
	return p.last()
}

// prober prints what the API answers to a client.
type prober struct {
	client
	out io.Writer
}

// await waits until the API listens: the emulator starts it beside the extensions.
func (p *prober) await() {
	for range 1000 {
		if conn, err := net.Dial("tcp", p.api); err == nil {
			conn.Close()
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *prober) ask(method, path, body string, head ...string) reply {
	r, err := p.call(method, path, body, head...)
	if err != nil {
		return reply{doc: map[string]any{"text": err.Error()}}
	}
	return r
}

func (p *prober) enrol(events string) reply {
	r, err := p.register(events)
	if err != nil {
		return reply{doc: map[string]any{"text": err.Error()}}
	}
	return r
}

func (p *prober) report(path, typ, body string) reply {
	if typ == "" {
		return p.ask(http.MethodPost, path, body)
	}
	return p.ask(http.MethodPost, path, body, "Lambda-Extension-Function-Error-Type", typ)
}

// say prints one answer: the status, the type of an error, or else the names of the fields, and
// the headers that are the API's own.
func (p *prober) say(what string, r reply) {
	fields := strings.Join(slices.Sorted(maps.Keys(r.doc)), ",")
	if typ, ok := r.doc["errorType"].(string); ok {
		fields = typ
	}
	if r.status == 0 {
		fields = fmt.Sprint(r.doc["text"])
	}
	var own []string
	for name := range r.head {
		if strings.HasPrefix(name, "Lambda-") || name == "Content-Type" {
			own = append(own, name)
		}
	}
	slices.Sort(own)
	fmt.Fprintf(p.out, "probe: %s: %d %s [%s]\n", what, r.status, fields, strings.Join(own, ","))
}

// unregistered is what may go wrong before the registration.
func (p *prober) unregistered() {
	const unknown = "11111111-2222-4333-8444-555555555555"
	p.say("register without a name", p.ask(http.MethodPost, "register", `{"events":[]}`))
	p.say("register without JSON", p.ask(http.MethodPost, "register", `events`, "Lambda-Extension-Name", p.name))
	p.say("register with configuration keys", p.ask(http.MethodPost, "register", `{"events":[],"configurationKeys":["x"]}`, "Lambda-Extension-Name", p.name))
	p.say("register for an unknown event", p.ask(http.MethodPost, "register", `{"events":["RESTORE"]}`, "Lambda-Extension-Name", p.name))
	p.say("next without an identifier", p.ask(http.MethodGet, "event/next", ""))
	p.say("next with half an identifier", p.ask(http.MethodGet, "event/next", "", "Lambda-Extension-Identifier", "abc"))
	p.say("next with an unknown identifier", p.ask(http.MethodGet, "event/next", "", "Lambda-Extension-Identifier", unknown))
	p.say("init error without an identifier", p.ask(http.MethodPost, "init/error", ""))
	p.say("no such call", p.ask(http.MethodGet, "nothing", ""))
	p.say("register by GET", p.ask(http.MethodGet, "register", ""))
}

// registered is the registration, and what may go wrong after it. It reports whether
// INVOKEs will come.
func (p *prober) registered() (invokes bool) {
	r := p.enrol(`"INVOKE","SHUTDOWN"`)
	p.say("register for INVOKE", r)
	if r.status != http.StatusOK {
		p.say("register for SHUTDOWN", p.enrol(`"SHUTDOWN"`))
	}
	p.say("register twice", p.enrol(`"SHUTDOWN"`))
	p.say("init error without a type", p.report("init/error", "", ""))
	p.say("exit error without a type", p.report("exit/error", "", ""))
	p.say("next by POST", p.ask(http.MethodPost, "event/next", ""))
	return r.status == http.StatusOK
}

// take takes an event, and reports what it cannot.
func (p *prober) take(kind string) {
	r := p.ask(http.MethodGet, "event/next", "")
	p.say(fmt.Sprintf("event %v, want %s", r.doc["eventType"], kind), r)
	p.say("init error after "+kind, p.report("init/error", "Probe.Init", ""))
	p.say("register after "+kind, p.enrol(`"SHUTDOWN"`))
}

// last waits for SHUTDOWN with more than one Next.
func (p *prober) last() int {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.take("SHUTDOWN")
	}()
	time.Sleep(100 * time.Millisecond) // until that Next waits
	p.say("next beside another", p.ask(http.MethodGet, "event/next", ""))
	p.say("init error while Next waits", p.report("init/error", "Probe.Init", ""))
	fmt.Fprintln(p.out, "probe: waits")
	<-done
	fmt.Fprintln(p.out, "probe: done")
	return 0
}
