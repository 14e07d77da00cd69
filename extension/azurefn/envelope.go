package azurefn

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
)

// maxEnvelope bounds an envelope that is read here, in bytes. A timer's has a
// few hundred.
const maxEnvelope = 1 << 20

// parseEvent reads of an envelope whether a timer fires later than its schedule says,
// leniently: what it does not know is nothing.
//
// Data has a field for each binding. A timer's is
//
//	{"Schedule":{"AdjustForDST":true},"ScheduleStatus":{...}|null,"IsPastDue":false}
//
// (ScriptInvocationContextExtensions.ToHttpScriptInvocationContext). What is no
// object arrives as JSON within a string.
func parseEvent(body []byte) (pastDue bool) {
	var envelope struct {
		Data map[string]json.RawMessage
	}
	if json.Unmarshal(body, &envelope) != nil {
		return false
	}
	for _, raw := range envelope.Data {
		var text string
		if json.Unmarshal(raw, &text) == nil {
			raw = json.RawMessage(text)
		}
		var timer struct{ IsPastDue bool }
		if json.Unmarshal(raw, &timer) == nil && timer.IsPastDue {
			return true
		}
	}
	return false
}

// reply is what the host takes as an answer (HttpScriptInvocationResult.cs).
type reply struct {
	Outputs     map[string]any
	Logs        []string
	ReturnValue any
}

// run runs a function of thaw's own. The answer is always 200: with any other
// status the host drops Logs, and what went wrong with them.
func (h *Handler) run(w http.ResponseWriter, r *http.Request, f Function) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEnvelope))
	if err != nil {
		refuse(w, http.StatusBadRequest, "read the envelope: "+err.Error())
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.base, cancel)()
	text, _ := json.Marshal(reply{Outputs: map[string]any{}, Logs: f(ctx, parseEvent(body))}) // texts can be encoded
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}
