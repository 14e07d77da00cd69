package lambda

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/wait"
)

// Run asks for events until SHUTDOWN and returns nil after the Handler's
// Shutdown did. It returns ctx's error when that ends first. Any other error
// means that the API cannot be used any more: a 4xx answer to Next (an
// *APIError) at once, and 5xx, broken connections or answers that are no
// events after six in a row, with pauses of 25ms to 400ms between. The caller
// should then call ExitError and exit.
func (c *Client) Run(ctx context.Context, h Handler) error {
	if c.identifier() == "" {
		return fmt.Errorf("extensions API: event/next: %w", ErrNotRegistered)
	}
	defer c.hangUp()
	failures := 0
	for {
		ev, err := c.take(ctx)
		refused, _ := errors.AsType[*APIError](err)
		switch {
		case err == nil && ev.kind == Invoke:
			failures = 0
			c.begin(h, ev.Event)
			c.settle()
			continue
		case err == nil && ev.kind == Shutdown:
			ctx, cancel := context.WithTimeout(ctx, budget(ev.ReceivedAt, ev.Deadline))
			defer cancel()
			h.Shutdown(ctx, ev.reason)
			return nil
		case err == nil:
			// Not asked for and not known. Taking it is right, but it counts as
			// a failure: an API that sends nothing else must not spin us.
			err = fmt.Errorf("extensions API: event/next: unknown event type %q", short(string(ev.kind), 64))
			c.settle()
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case refused != nil && refused.Status >= 400 && refused.Status < 500:
			return err
		default:
			if refused == nil && c.invokes.Load() {
				// The answer could not be read: it may have been an INVOKE, and
				// the function may be running by now.
				c.begin(h, Event{ReceivedAt: c.o.Now()})
			}
			c.hangUp()
		}
		failures++
		if failures >= maxNextErrors {
			return fmt.Errorf("gave up after %d failures in a row: %w", failures, err)
		}
		c.o.Log.Warn("the Extensions API gave no event, asking again", "error", err, "failures", failures)
		if err := wait.For(ctx, firstPause<<(failures-1)); err != nil {
			return err
		}
	}
}

// begin starts a new epoch.
func (c *Client) begin(h Handler, ev Event) {
	h.Invoke(ev)
	c.arrivals.begin(ev)
}

// budget is the time a Handler has for a shutdown: a second, or less if
// Lambda's deadline less the spare is sooner. SHUTDOWN has 2s for the runtime
// and all extensions together, then comes SIGKILL.
func budget(now, deadline time.Time) time.Duration {
	if deadline.IsZero() {
		return shutdownBudget
	}
	return max(0, min(clock.Until(deadline, now)-shutdownSpare, shutdownBudget))
}

// event is an Event with what only the loop needs.
type event struct {
	Event
	kind   EventType
	reason string // of SHUTDOWN
}

// take sends one Next and waits for its answer, however long that takes.
func (c *Client) take(ctx context.Context) (event, error) {
	_, body, err := c.call(ctx, c.next, http.MethodGet, "event/next", unrepeatable{}, http.Header{headerID: {c.identifier()}})
	if err != nil {
		return event{}, err
	}
	ev, err := parseEvent(body)
	if err != nil {
		return event{}, fmt.Errorf("extensions API: event/next: read event: %w", err)
	}
	ev.ReceivedAt = c.o.Now()
	return ev, nil
}

// unrepeatable is an empty request body. net/http repeats a GET by itself, on a
// new connection, when the server cuts a kept one before answering; a body it
// cannot rewind keeps it from that. A cut may have swallowed an INVOKE, so the
// loop must hear of it. Nothing of the body is sent: net/http looks for its
// first byte and finds none.
type unrepeatable struct{}

func (unrepeatable) Read([]byte) (int, error) { return 0, io.EOF }

// parseEvent reads the body of an answer to Next. It must not lose an event over
// a detail: fields it does not know, or of another JSON type than documented,
// are left out, and a deadline that is no whole number of milliseconds is none.
func parseEvent(body []byte) (event, error) {
	doc, err := object(body)
	if err != nil {
		return event{}, err
	}
	kind := text(doc["eventType"])
	if kind == "" {
		return event{}, errors.New("the answer has no eventType")
	}
	ev := event{kind: EventType(kind), reason: text(doc["shutdownReason"])}
	ev.RequestID = text(doc["requestId"])
	if tracing, ok := doc["tracing"].(map[string]any); ok {
		ev.TraceID = text(tracing["value"])
	}
	if ms := milliseconds(doc["deadlineMs"]); ms > 0 {
		ev.Deadline = time.UnixMilli(ms)
	}
	return ev, nil
}

// milliseconds reads a whole number, also one in quotes, or returns 0.
func milliseconds(v any) int64 {
	switch v := v.(type) {
	case float64: // exact up to 1<<53, which is the year 287396
		if ms := int64(v); v > 0 && v < 1<<53 && float64(ms) == v {
			return ms
		}
	case string:
		if ms, err := strconv.ParseInt(v, 10, 64); err == nil {
			return ms
		}
	}
	return 0
}
