package meter_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/meter"
)

func TestTextIsPrometheuss(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := meter.WriteText(&b, []meter.Metric{
		{Name: "thaw_hits_total", Help: "Requests answered from the cache.", Counter: true, Value: 1234567},
		{Name: "thaw_cache_bytes", Help: "Memory.", Unit: "Bytes", Value: 1.5},
		{Name: "thaw_big_total", Help: "Beyond what an int32 holds.", Counter: true, Value: 1 << 53},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `# HELP thaw_hits_total Requests answered from the cache.
# TYPE thaw_hits_total counter
thaw_hits_total 1.234567e+06
# HELP thaw_cache_bytes Memory.
# TYPE thaw_cache_bytes gauge
thaw_cache_bytes 1.5
# HELP thaw_big_total Beyond what an int32 holds.
# TYPE thaw_big_total counter
thaw_big_total 9.007199254740992e+15
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// emf is a line as CloudWatch reads it.
type emf struct {
	AWS struct {
		Timestamp         int64
		CloudWatchMetrics []struct {
			Namespace  string
			Dimensions [][]string
			Metrics    []struct{ Name, Unit string }
		}
	} `json:"_aws"`
	Function string `json:"function"`
}

func TestEMFLinesHoldTheGrowthOfCountersAndGaugesAsTheyAre(t *testing.T) {
	t.Parallel()
	e := meter.NewEMF("my-function", true)
	now := time.UnixMilli(1_795_248_117_123)
	for i, c := range []struct{ hits, entries, wantHits, wantEntries float64 }{
		{5, 3, 5, 3}, {5, 2, 0, 2}, {12, 0, 7, 0},
	} {
		var b strings.Builder
		err := e.Write(&b, now, []meter.Metric{
			{Name: "thaw_hits_total", Counter: true, Unit: "Count", Value: c.hits},
			{Name: "thaw_entries", Unit: "Count", Value: c.entries},
			{Name: "thaw_identities", Value: 9},
		})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(b.String(), "\n") != 1 || !strings.HasSuffix(b.String(), "\n") {
			t.Fatalf("not one line: %q", b.String())
		}
		var line emf
		values := map[string]any{}
		if err := errors.Join(json.Unmarshal([]byte(b.String()), &line), json.Unmarshal([]byte(b.String()), &values)); err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(values)); !slices.Equal(got, []string{"_aws", "function", "thaw_entries", "thaw_hits_total"}) {
			t.Errorf("line %d holds %q", i, got)
		}
		if values["thaw_hits_total"] != c.wantHits || values["thaw_entries"] != c.wantEntries {
			t.Errorf("line %d: hits %v, entries %v, want %v and %v", i, values["thaw_hits_total"], values["thaw_entries"], c.wantHits, c.wantEntries)
		}
		if line.Function != "my-function" || line.AWS.Timestamp != now.UnixMilli() || len(line.AWS.CloudWatchMetrics) != 1 {
			t.Fatalf("line %d: %+v", i, line)
		}
		d := line.AWS.CloudWatchMetrics[0]
		if d.Namespace != "thaw" || len(d.Dimensions) != 1 || !slices.Equal(d.Dimensions[0], []string{"function"}) || len(d.Metrics) != 2 {
			t.Errorf("line %d: %+v", i, d)
		}
		for _, m := range d.Metrics {
			if _, ok := values[m.Name]; !ok || m.Unit != "Count" {
				t.Errorf("line %d defines %+v", i, m)
			}
		}
	}
}

// fullDisk fails each write.
type fullDisk struct{}

var errFull = errors.New("no space left")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestErrorsOfTheWriterComeBack(t *testing.T) {
	t.Parallel()
	m := []meter.Metric{{Name: "thaw_x", Unit: "Count"}}
	if err := meter.WriteText(fullDisk{}, m); !errors.Is(err, errFull) {
		t.Errorf("text: %v", err)
	}
	if err := meter.NewEMF("f", true).Write(fullDisk{}, time.Now(), m); !errors.Is(err, errFull) {
		t.Errorf("EMF: %v", err)
	}
}
