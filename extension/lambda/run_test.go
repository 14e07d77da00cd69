package lambda

import (
	"testing"
	"time"
)

func TestShutdownBudget(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_000_000)
	for _, tt := range []struct {
		left, want time.Duration
	}{
		{2 * time.Second, time.Second},
		{1301 * time.Millisecond, time.Second},
		{1300 * time.Millisecond, time.Second},
		{1299 * time.Millisecond, 999 * time.Millisecond},
		{301 * time.Millisecond, time.Millisecond},
		{300 * time.Millisecond, 0},
		{0, 0},
		{-time.Hour, 0},
		{1000 * time.Hour, time.Second},
	} {
		if got := budget(now, now.Add(tt.left)); got != tt.want {
			t.Errorf("%v left: %v, want %v", tt.left, got, tt.want)
		}
	}
	if got := budget(now, time.Time{}); got != time.Second {
		t.Errorf("no deadline: %v", got)
	}
}

func TestParseEvent(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_600_000_000_123)
	for text, want := range map[string]event{
		`{"eventType":"INVOKE","deadlineMs":1600000000123,"requestId":"r","invokedFunctionArn":"a","tracing":{"type":"X-Amzn-Trace-Id","value":"t"}}`: {
			kind: Invoke, Event: Event{RequestID: "r", Deadline: at, TraceID: "t"}},
		`{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":1600000000123}`: {kind: Shutdown, reason: "spindown", Event: Event{Deadline: at}},
		`{"eventType":"SHUTDOWN","shutdownReason":7}`:                                     {kind: Shutdown},
		`{"eventType":"INVOKE","tracing":null}`:                                           {kind: Invoke},
		`{"eventType":"INVOKE","tracing":"x","requestId":["x"]}`:                          {kind: Invoke},
		`{"eventType":"INVOKE","deadlineMs":"1600000000123"}`:                             {kind: Invoke, Event: Event{Deadline: at}},
		`{"eventType":"INVOKE","deadlineMs":1.5}`:                                         {kind: Invoke},
		`{"eventType":"INVOKE","deadlineMs":-1}`:                                          {kind: Invoke},
		`{"eventType":"INVOKE","deadlineMs":1e999}`:                                       {kind: Invoke},
		`{"eventType":"INVOKE","deadlineMs":99999999999999999999}`:                        {kind: Invoke},
		`{"eventType":"LATER","more":{}}`:                                                 {kind: "LATER"},
	} {
		got, err := parseEvent([]byte(text))
		if err != nil || got != want {
			t.Errorf("%s: %+v %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{``, `{`, `[]`, `null`, `"INVOKE"`, `{}`, `{"eventType":7}`, `{"eventType":""}`, `{"eventType":"INVOKE"}{`} {
		if got, err := parseEvent([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

// No text makes the parser panic, or give an event without a kind.
func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(`{"eventType":"INVOKE","deadlineMs":1600000000123,"requestId":"r","tracing":{"value":"t"}}`))
	f.Add([]byte(shutdownAnswer))
	f.Add([]byte(`{"eventType":"INVOKE","deadlineMs":"\""}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		ev, err := parseEvent(body)
		if err == nil && ev.kind == "" {
			t.Errorf("an event without a kind: %+v", ev)
		}
		budget(time.UnixMilli(0), ev.Deadline)
		_ = refusal("event/next", 403, body).Error()
	})
}
