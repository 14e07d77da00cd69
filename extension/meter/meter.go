// Package meter renders counters: as Prometheus text and as lines of
// CloudWatch's embedded metric format. Prometheus's client library would bring
// protobuf and registries into every cold start, for a dozen lines of text.
package meter

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Metric is one number at one moment.
type Metric struct {
	Name    string // as Prometheus has it: thaw_hits_total
	Help    string
	Counter bool    // only grows; else a gauge
	Unit    string  // CloudWatch's unit: Count, Bytes, Seconds; empty: not in EMF
	Value   float64 //
}

// WriteText writes Prometheus's text format
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func WriteText(w io.Writer, metrics []Metric) error {
	for _, m := range metrics {
		kind := "gauge"
		if m.Counter {
			kind = "counter"
		}
		if _, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %s\n", m.Name, m.Help, m.Name, kind,
			m.Name, strconv.FormatFloat(m.Value, 'g', -1, 64)); err != nil {
			return err
		}
	}
	return nil
}

// EMF writes what changed between calls.
type EMF struct {
	function string
	last     map[string]float64
}

// NewEMF returns an EMF for a function's metrics.
func NewEMF(function string) *EMF {
	return &EMF{function: function, last: make(map[string]float64)}
}

// Write writes one line: the growth of each counter since the last line, and
// each gauge
// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
func (e *EMF) Write(w io.Writer, now time.Time, metrics []Metric) error {
	type definition struct {
		Name string `json:"Name"`
		Unit string `json:"Unit"`
	}
	var defined []definition
	line := map[string]any{"function": e.function}
	for _, m := range metrics {
		if m.Unit == "" {
			continue
		}
		value := m.Value
		if m.Counter {
			value -= e.last[m.Name]
			e.last[m.Name] = m.Value
		}
		defined = append(defined, definition{m.Name, m.Unit})
		line[m.Name] = value
	}
	line["_aws"] = map[string]any{
		"Timestamp": now.UnixMilli(),
		"CloudWatchMetrics": []any{map[string]any{
			"Namespace":  "thaw",
			"Dimensions": [][]string{{"function"}},
			"Metrics":    defined,
		}},
	}
	b, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
