package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"
)

// Report is everything that was measured, as dist/bench.json has it.
type Report struct {
	Date    time.Time `json:"date"`
	Machine Machine   `json:"machine"`
	Notes   []string  `json:"notes,omitempty"`
	Tables  []*Table  `json:"tables"`
	Plots   []*Plot   `json:"plots,omitempty"`
}

// Machine is where it was measured.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	Memory float64 `json:"memory_gb"`
	Kernel string  `json:"kernel"`
	Go     string  `json:"go"`
	Arch   string  `json:"arch"`
	Load   string  `json:"load_average_at_start"`
}

// Table is one kind of measurement.
type Table struct {
	Title   string   `json:"title"`
	Unit    string   `json:"unit"`
	Rows    []Row    `json:"rows"`
	Remarks []string `json:"remarks,omitempty"`
}

// Row is one thing measured.
type Row struct {
	Name   string  `json:"name"`
	Value  Sample  `json:"value"`
	Ratio  *Sample `json:"ratio_to_first_row,omitempty"` // of each run to the first row's run beside it
	Target string  `json:"target,omitempty"`
	Note   string  `json:"note,omitempty"`
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *Report) table(title, unit string) *Table {
	t := &Table{Title: title, Unit: unit}
	r.Tables = append(r.Tables, t)
	return t
}

// describe reads what /proc says of the machine. What cannot be read is left empty.
func describe() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Arch: runtime.GOOS + "/" + runtime.GOARCH}
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			m.CPU = strings.TrimSpace(v)
			break
		}
	}
	var kib float64
	if _, err := fmt.Sscanf(read("/proc/meminfo"), "MemTotal: %f kB", &kib); err == nil {
		m.Memory = float64(int(kib*1024/1e8)) / 10
	}
	m.Kernel, m.Load = read("/proc/sys/kernel/osrelease"), read("/proc/loadavg")
	return m
}

// show prints a sample with its spread.
func show(s Sample, digits int) string {
	if s.Runs == 1 {
		return fmt.Sprintf("%.*f", digits, s.Median)
	}
	return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, s.Median, digits, s.Min, digits, s.Max)
}

// print writes the table for people.
func (t *Table) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %s: median (least to greatest)\n", t.Title, t.Unit)
	name, value := 0, 0
	for _, r := range t.Rows {
		name = max(name, utf8.RuneCountInString(r.Name))
		value = max(value, len(show(r.Value, 2)))
	}
	for _, r := range t.Rows {
		line := fmt.Sprintf("  %-*s  %*s", name, r.Name, value, show(r.Value, 2))
		if r.Ratio != nil {
			line += "  x " + show(*r.Ratio, 2)
		}
		if r.Target != "" {
			line += "  [target: " + r.Target + "]"
		}
		fmt.Fprintln(w, line)
		if r.Note != "" {
			fmt.Fprintf(w, "  %*s  %s\n", name, "", r.Note)
		}
	}
	for _, remark := range t.Remarks {
		fmt.Fprintf(w, "  %s\n", remark)
	}
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %.1f GB, Linux %s, %s %s, load %s", m.CPU, m.Cores, m.Memory, m.Kernel, m.Go, m.Arch, m.Load)
}

// save writes the report as JSON.
func (r *Report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
