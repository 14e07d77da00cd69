package lambda

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// step is one thing that the function does in an invocation.
type step struct {
	Read  string        `json:",omitempty"` // a path below /v1/, read through the extension
	ID    bool          `json:",omitempty"` // that read names its invocation: Lambda-Runtime-Aws-Request-Id
	Trace string        `json:",omitempty"` // that read carries this X-Amzn-Trace-Id; "own": its invocation's
	Named string        `json:",omitempty"` // that read names this invocation, whichever runs
	Sleep time.Duration `json:",omitempty"`
	Exit  bool          `json:",omitempty"` // the runtime ends
	Hang  bool          `json:",omitempty"` // and never answers
}

// outcome is what came of a read.
type outcome struct {
	Status int
	Value  string        // data.data.v
	Cache  string        // Cache-Status
	Took   time.Duration // until the whole answer was there
	Error  string        `json:",omitempty"`
}

// result is the function's answer.
type result struct {
	Reads []outcome // one for each read of the event
	Init  []outcome // of the reads during the function's init
	PID   int       // tells one life of the runtime from the next; within namespaces it may repeat
	ID    string    // of the invocation
	Born  time.Time // when the runtime started
}

// serve is the function: a runtime of a few lines that does what its events say.
// Its first act in an invocation may be a read, on a connection that is open
// already, which no runtime can beat.
// Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
func serve(api string) int {
	f := function{api: "http://" + api + "/2018-06-01/runtime/", born: time.Now()}
	for path := range strings.FieldsSeq(os.Getenv("FUNCTION_INIT_READS")) {
		f.init = append(f.init, f.read(step{Read: path}, http.Header{}))
	}
	workers, _ := strconv.Atoi(os.Getenv("AWS_LAMBDA_MAX_CONCURRENCY")) // empty: one
	var wg sync.WaitGroup
	for range max(1, workers) {
		wg.Go(func() {
			for f.invocation() {
			}
		})
	}
	wg.Wait()
	return 3
}

type function struct {
	api  string
	born time.Time
	init []outcome
}

// invocation takes one event and answers it, and reports whether the API did its part.
func (f *function) invocation() bool {
	resp, err := http.Get(f.api + "invocation/next")
	if err != nil {
		fmt.Println("function: next:", err)
		return false
	}
	defer resp.Body.Close()
	var steps []step
	if err := json.NewDecoder(resp.Body).Decode(&steps); err != nil {
		fmt.Println("function: event:", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	id := resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
	out := result{Init: f.init, PID: os.Getpid(), ID: id, Born: f.born}
	for _, s := range steps {
		switch {
		case s.Exit:
			os.Exit(7)
		case s.Hang:
			select {}
		case s.Read != "":
			out.Reads = append(out.Reads, f.read(s, resp.Header))
		}
		time.Sleep(s.Sleep)
	}
	body, _ := json.Marshal(out)
	answer, err := http.Post(f.api+"invocation/"+id+"/response", "application/json", bytes.NewReader(body))
	if err != nil {
		fmt.Println("function: response:", err)
		return false
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.Body.Close() == nil
}

// read reads a secret through the extension; invocation is the head that came with the event.
func (f *function) read(s step, invocation http.Header) (o outcome) {
	begun := time.Now()
	defer func() { o.Took = time.Since(begun) }()
	req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:8200/v1/"+s.Read, nil)
	if err != nil {
		return outcome{Error: err.Error()}
	}
	if s.ID {
		req.Header.Set("Lambda-Runtime-Aws-Request-Id", invocation.Get("Lambda-Runtime-Aws-Request-Id"))
	}
	if s.Named != "" {
		req.Header.Set("Lambda-Runtime-Aws-Request-Id", s.Named)
	}
	if s.Trace != "" {
		req.Header.Set("X-Amzn-Trace-Id", s.Trace)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return outcome{Error: err.Error()}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return outcome{Error: err.Error()}
	}
	var doc struct {
		Data struct {
			Data struct{ V string }
		}
		Errors []string
	}
	_ = json.Unmarshal(body, &doc) // an answer that is no secret has no value
	return outcome{Status: resp.StatusCode, Value: doc.Data.Data.V, Cache: resp.Header.Get("Cache-Status"), Error: strings.Join(doc.Errors, "; ")}
}
