package harness

import "testing"

func TestGrowthIsNoticed(t *testing.T) {
	t.Parallel()
	grow := func(change func(i int, s *Sample)) []Sample {
		out := make([]Sample, 100)
		for i := range out {
			out[i] = Sample{Resident: 30 << 20, Goroutines: 20, Files: 12}
			change(i, &out[i])
		}
		return out
	}
	for name, c := range map[string]struct {
		samples []Sample
		want    int
	}{
		"flat":                {grow(func(int, *Sample) {}), 0},
		"up at the start":     {grow(func(i int, s *Sample) { s.Resident += float64(min(i, 15)) * (1 << 20) }), 0},
		"a sawtooth":          {grow(func(i int, s *Sample) { s.Resident += float64(i%7) * (1 << 20) }), 0},
		"200 KiB each sample": {grow(func(i int, s *Sample) { s.Resident += float64(i) * 200 * 1024 }), 1},
		"a goroutine each":    {grow(func(i int, s *Sample) { s.Goroutines += float64(i) }), 1},
		"a file each":         {grow(func(i int, s *Sample) { s.Files += float64(i) }), 1},
		"too short":           {grow(func(int, *Sample) {})[:5], 1},
	} {
		for _, steady := range []bool{false, true} {
			if got := Growth(c.samples, steady); len(got) != c.want {
				t.Errorf("%s, steady load %v: %q", name, steady, got)
			}
		}
	}
}
