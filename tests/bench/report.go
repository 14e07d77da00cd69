package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Report is everything that was measured, as dist/bench.json has it.
type Report struct {
	Date    time.Time `json:"date"`
	Machine Machine   `json:"machine"`
	Others  []float64 `json:"others"` // shares of the machine that other processes used, before and after
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
	Added  *Sample `json:"added_to_first_row,omitempty"` // of each run to the first row's run beside it
	Target string  `json:"target,omitempty"`
	Most   float64 `json:"most,omitempty"`    // the target as a number; 0: none
	MostOf string  `json:"most_of,omitempty"` // ofRatio or ofAdded; empty: of the value
	Note   string  `json:"note,omitempty"`
}

// What a target is the most of, if not of the value.
const (
	ofRatio = "ratio"
	ofAdded = "added"
)

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

// others notes how much of the machine other processes use while this one does
// nothing.
func (r *Report) others(ctx context.Context) error {
	const look = 2 * time.Second
	work, all, err := machineTime()
	if err != nil {
		return nil // not Linux: it is not said
	}
	select {
	case <-time.After(look):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	work2, all2, err := machineTime()
	if err == nil && all2 > all {
		r.Others = append(r.Others, (work2-work)/(all2-all))
	}
	return err
}

// machineTime is the time that all processors worked, and in all, since the
// start: https://man7.org/linux/man-pages/man5/proc_stat.5.html.
func machineTime() (work, all float64, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line)[1:] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		if i > 7 {
			break // guests are counted as users
		}
		if all += n; i != 3 && i != 4 { // idle, waiting for a disk
			work += n
		}
	}
	return work, all, nil
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %.1f GB, Linux %s, %s %s, load %s", m.CPU, m.Cores, m.Memory, m.Kernel, m.Go, m.Arch, m.Load)
}

// lists are the innermost ones of indented JSON. No text has a line break, as JSON
// escapes it.
var (
	lists  = regexp.MustCompile(`\[\n[^\[\]]*\]`)
	breaks = regexp.MustCompile(`\n *`)
)

// save writes the report as JSON, with a line for each list of figures: there are
// thousands.
func (r *Report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	b = lists.ReplaceAllFunc(b, func(list []byte) []byte { return breaks.ReplaceAll(list, nil) })
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
