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
	Counter bool   // only grows; else a gauge
	Unit    string // CloudWatch's unit: Count, Bytes, Seconds; empty: not in EMF
	Main    bool   // in EMF's short lines, too
	Label   string // as Prometheus has it, code="403"; empty: none. Those of one name follow each other
	Value   float64
}

// Flag is the value of a metric that says whether something is so: 1 or 0.
func Flag(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// WriteText writes Prometheus's text format
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func WriteText(w io.Writer, metrics []Metric) error {
	for i, m := range metrics {
		kind, text, name := "gauge", "", m.Name
		if m.Counter {
			kind = "counter"
		}
		if i == 0 || metrics[i-1].Name != m.Name {
			text = "# HELP " + m.Name + " " + m.Help + "\n# TYPE " + m.Name + " " + kind + "\n"
		}
		if m.Label != "" {
			name += "{" + m.Label + "}"
		}
		if _, err := fmt.Fprintf(w, "%s%s %s\n", text, name, strconv.FormatFloat(m.Value, 'g', -1, 64)); err != nil {
			return err
		}
	}
	return nil
}

// EMF writes what changed between calls.
type EMF struct {
	function string
	all      bool
	last     map[string]float64
}

// NewEMF returns an EMF for a function's metrics: all, or the main ones.
func NewEMF(function string, all bool) *EMF {
	return &EMF{function: function, all: all, last: make(map[string]float64)}
}

// Write writes one line: the growth of each counter since the last line, and
// each gauge
// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
func (e *EMF) Write(w io.Writer, now time.Time, metrics []Metric) error {
	var defined []map[string]string
	line := map[string]any{"function": e.function}
	for _, m := range metrics {
		if m.Unit == "" || !m.Main && !e.all {
			continue
		}
		value := m.Value
		if m.Counter {
			value -= e.last[m.Name]
			e.last[m.Name] = m.Value
		}
		defined = append(defined, map[string]string{"Name": m.Name, "Unit": m.Unit})
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
