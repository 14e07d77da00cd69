package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// planted has what is awkward: no spread, no points, zeros on a logarithmic
// axis, names with angle brackets, a target met and two missed.
const planted = `{
 "date": "2026-11-28T12:00:00Z", "machine": {"cpu": "C", "cores": 2}, "others": [0.02, 0.4], "notes": ["a <note>"],
 "tables": [{"title": "T & <b>", "unit": "ms", "rows": [
  {"name": "<script>alert(1)</script>", "value": {"median": 0, "runs": [0]}},
  {"name": "few", "value": {"median": 1.5, "runs": [1, 2]}, "target": "under 2", "most": 2},
  {"name": "many", "value": {"median": 5, "runs": [5, 4, 6, 5, 5, 5, 4, 6]}, "target": "under 3", "most": 3},
  {"name": "slow", "value": {"median": 1, "runs": [1]}, "ratio_to_first_row": {"median": 1.2, "runs": [1.2]}, "target": "at most 1.05 of it", "most": 1.05, "most_of": "ratio"}
 ], "remarks": ["a remark"]}],
 "plots": [
  {"title": "\"<x>\"", "x": {"label": "n"}, "y": {"label": "y & z"}, "series": [
   {"name": "<one>", "points": [{"x": 1, "y": 5}, {"x": 10, "y": 5}], "marked": true}, {"name": "limit", "points": [{"x": 1, "y": 5}], "limit": true}]},
  {"title": "log", "x": {"label": "n", "log": true}, "y": {"label": "y", "log": true}, "series": [{"name": "zero", "points": [{"x": 1, "y": 0}, {"x": 10, "y": 50}], "marked": true}]},
  {"title": "empty", "x": {"label": "n"}, "y": {"label": "y"}, "series": [{"name": "none", "points": null}]}
 ]}`

func TestTheReportTellsMissedTargetsAndABusyMachine(t *testing.T) {
	t.Parallel()
	from := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(from, []byte(planted), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	if code := run([]string{from}, &out, &errs); code != 0 {
		t.Fatal(code, errs.String())
	}
	for _, want := range []string{
		"Busy machine: other processes used 2 % and 40 % of it",
		"few                        1.50 (1.00 to 2.00)  [target: under 2]",
		"many                                5.00 ± 20%  [MISSED: under 3]",
		"× 1.20  [MISSED: at most 1.05 of it]", "a remark", "zero   1: 0.00  10: 50.0",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	text, err := os.ReadFile(strings.TrimSuffix(from, "json") + "html")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	if strings.Contains(page, "<script") || strings.Contains(page, "NaN") || strings.Contains(page, "Inf") || strings.Contains(page, "ZgotmplZ") {
		t.Errorf("%s", page)
	}
	if n := strings.Count(page, `<tr class="missed">`); n != 2 || !strings.Contains(page, "2 of 3 are") {
		t.Errorf("%d rows are red, want 2", n)
	}
	wellFormed(t, page, 2)
}

// wellFormed parses the page's pictures, of which there must be so many.
func wellFormed(t *testing.T, page string, want int) {
	t.Helper()
	pictures := 0
	for rest := page; ; pictures++ {
		_, after, ok := strings.Cut(rest, "<svg ")
		if !ok {
			break
		}
		picture, tail, _ := strings.Cut(after, "</svg>")
		rest = tail
		for d := xml.NewDecoder(strings.NewReader("<svg " + picture + "</svg>")); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in\n%s", err, picture)
			}
		}
		if strings.Count(picture, "<text") < 6 { // a label and two marks for each axis
			t.Errorf("an axis is not marked: %s", picture)
		}
	}
	if pictures != want {
		t.Errorf("%d pictures, want %d", pictures, want)
	}
}

func TestSharesOfTheMachine(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]string{"It is not known": `{}`, "Quiet machine: other processes used 3 %": `{"others":[0.03]}`, "Busy machine": `{"others":[0,0.11]}`} {
		var got results
		if err := json.Unmarshal([]byte(r), &got); err != nil || !strings.HasPrefix(got.quiet(), want) {
			t.Errorf("%s: %s, %v", r, got.quiet(), err)
		}
	}
}

func TestItSaysHowItIsUsed(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]int{"": 2, "x.html": 2, "/nonexistent/x.json": 1} {
		var errs strings.Builder
		if code := run(strings.Fields(args), io.Discard, &errs); code != want || errs.Len() == 0 {
			t.Errorf("%q: %d %s", args, code, &errs)
		}
	}
}

func TestALogarithmicAxisHasMarks(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]float64{{1, 1e6}, {3, 7}, {0.5, 1.6}, {1e-9, 50}, {20, 40}} {
		if got := decades(c[0], c[1]); len(got) < 1 || len(got) > 12 {
			t.Errorf("%v: %d marks", c, len(got))
		}
	}
}

// TestThePictureOfAFleetIsDrawnFromItsNumbers: docs/pictures/fleet.svg from docs/fleet.json.
func TestThePictureOfAFleetIsDrawnFromItsNumbers(t *testing.T) {
	t.Parallel()
	want, err := drawn("../../../docs/fleet.json")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("../../../docs/pictures/fleet.svg"); err != nil || string(got) != want {
		t.Errorf("docs/pictures/fleet.svg is another picture (%v); draw it anew with: go run -C tests/bench/report . ../../../docs/fleet.json ../../../docs/pictures/fleet.svg", err)
	}
}

// TestNoMarkIsCutOff: a reader's font may be wider than the one the picture was laid out with.
func TestNoMarkIsCutOff(t *testing.T) {
	t.Parallel()
	p := picture{X: axis{Log: true}, Y: axis{Log: true}, Series: []series{{Points: []struct{ X, Y float64 }{{1000, 1}, {100_000, 2}}}}}
	svg, err := p.svg()
	if err != nil {
		t.Fatal(err)
	}
	const glyph = 7.6 // of 12 pixels, as wide as common fonts have digits
	found := 0
	for _, m := range regexp.MustCompile(`(?s)<text x="([0-9.]+)"[^>]*>([0-9.]+)</text>`).FindAllStringSubmatch(svg, -1) {
		x, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		if found++; x+glyph*float64(len(m[2])) > width.Points() {
			t.Errorf("%s at %v is cut off at %v", m[2], x, width.Points())
		}
	}
	if found < 4 {
		t.Errorf("%d marks", found)
	}
}
