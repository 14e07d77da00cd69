package main

import (
	"bytes"
	"fmt"
	"html/template"
	"os"
)

// page is the report for people: one file that needs nothing else.
func page() (*template.Template, error) {
	return template.New("page").Funcs(template.FuncMap{
		"show": func(s Sample) string { return show(s, 2) },
		"svg":  func(p *Plot) template.HTML { return template.HTML(p.svg()) }, // made here, its texts are escaped
		"class": func(i int, s Series) string {
			if s.Limit {
				return "limit"
			}
			return fmt.Sprintf("c%d", i%colours)
		},
		"bar": func(t *Table, s Sample) int {
			top := 0.0
			for _, r := range t.Rows {
				top = max(top, r.Value.Median)
			}
			if top <= 0 {
				return 0
			}
			return int(100 * s.Median / top)
		},
	}).Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>thaw: benchmarks</title>
<style>
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --text: #1d2733; --soft: #66717d; --line: #e3e6e8; --bar: #cfe3f7; --goal: #0a7d4f;
 --c0: #0b6bcb; --c1: #d1620a; --c2: #2e8b57; --c3: #8a4fbf; --c4: #b8233a; --c5: #00808a; --c6: #7a6a00; }
@media (prefers-color-scheme: dark) { :root { --back: #12161b; --card: #1a2027; --text: #e4e9ee; --soft: #95a1ad; --line: #2c343d; --bar: #1e3a57; --goal: #52c793;
 --c0: #5aa9f5; --c1: #f29a4c; --c2: #62c48e; --c3: #bd8ff0; --c4: #f0697d; --c5: #4fc6d0; --c6: #d2bf4a; } }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1rem 4rem; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .8rem; } h3 { font-size: 1rem; margin: 0 0 .6rem; }
p.where, li { color: var(--soft); } .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; } td, th { text-align: left; padding: .3rem .6rem .3rem 0; border-top: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; border-top: 0; } td.n { white-space: nowrap; } .note { color: var(--soft); font-size: .85rem; } .goal { color: var(--goal); font-size: .85rem; }
.bar { height: 4px; background: var(--bar); border-radius: 2px; margin-top: .2rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font: 12.5px system-ui, sans-serif; } svg .axis { fill: var(--text); } .grid { stroke: var(--line); }
polyline { fill: none; stroke-width: 1.8; } .limit { stroke: var(--soft); stroke-dasharray: 5 4; fill: none; }
{{range $i := .Colours}}polyline.c{{$i}} { stroke: var(--c{{$i}}); } circle.c{{$i}}, i.c{{$i}} { fill: var(--c{{$i}}); background: var(--c{{$i}}); } {{end}}
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .4rem 0 0; padding: 0; list-style: none; font-size: .88rem; } .legend i { display: inline-block; width: .8rem; height: .2rem; margin-right: .4rem; vertical-align: middle; } .legend i.limit { background: var(--soft); }
ul.remarks { margin: .6rem 0 0; padding-left: 1.1rem; font-size: .88rem; }
</style></head><body>
<h1>thaw: benchmarks</h1>
<p class="where">{{.R.Date.Format "2 January 2006, 15:04 UTC"}} &middot; {{.R.Machine}}</p>
<p>Medians, with the least and the greatest run in brackets; ratios are of each run to the first row's run beside it, taken in turns. CPU is the server process's own clock.</p>
{{if .R.Plots}}<h2>Pictures</h2><div class="cards">
{{range .R.Plots}}<section><h3>{{.Title}}</h3>{{svg .}}<ul class="legend">{{range $i, $s := .Series}}<li><i class="{{class $i $s}}"></i>{{$s.Name}}</li>{{end}}</ul>
{{if .Remarks}}<ul class="remarks">{{range .Remarks}}<li>{{.}}</li>{{end}}</ul>{{end}}</section>
{{end}}</div>{{end}}
<h2>Figures</h2><div class="cards">
{{range $t := .R.Tables}}<section><h3>{{$t.Title}}, {{$t.Unit}}</h3><table>
{{range $t.Rows}}<tr><td>{{.Name}}{{if .Note}}<div class="note">{{.Note}}</div>{{end}}{{if .Target}}<div class="goal">target: {{.Target}}</div>{{end}}</td>
<td class="n">{{show .Value}}<div class="bar" style="width:{{bar $t .Value}}%"></div>{{if .Ratio}}<span class="note">&times;&nbsp;{{show .Ratio}}</span>{{end}}</td></tr>
{{end}}</table>{{if .Remarks}}<ul class="remarks">{{range .Remarks}}<li>{{.}}</li>{{end}}</ul>{{end}}</section>
{{end}}</div>
{{if .R.Notes}}<h2>Notes</h2><ul>{{range .R.Notes}}<li>{{.}}</li>{{end}}</ul>{{end}}
</body></html>
`)
}

// savePage writes the report as one HTML file.
func (r *Report) savePage(path string) error {
	var b bytes.Buffer
	list := make([]int, colours)
	for i := range list {
		list[i] = i
	}
	t, err := page()
	if err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	if err := t.Execute(&b, struct {
		R       *Report
		Colours []int
	}{r, list}); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
