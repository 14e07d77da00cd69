package main

import (
	"errors"
	"fmt"
	"html/template"
	"io"
)

// drawing is a picture as the page has it.
type drawing struct {
	Title   string
	SVG     template.HTML
	Legend  []legend
	Remarks []string
}

type legend struct {
	Name   string
	Colour template.CSS
}

// page writes the report for people: one file that needs nothing else.
func (r *results) page(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"missed": row.missed, "compared": func(t *table, r row) string { return t.compared(r) },
		"bar": (*table).bar,
	}).Parse(layout)
	if err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	view := struct {
		R               *results
		Pictures        []drawing
		Missed, Targets int
	}{R: r}
	for _, p := range r.Plots {
		d, err := p.drawing()
		if errors.Is(err, errEmpty) {
			continue
		}
		if err != nil {
			return err
		}
		view.Pictures = append(view.Pictures, d)
	}
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			if row.Most > 0 {
				view.Targets++
			}
			if row.missed() {
				view.Missed++
			}
		}
	}
	return t.Execute(w, view)
}

// Quiet is for the template.
func (r *results) Quiet() string { return r.quiet() }

func (p *picture) drawing() (drawing, error) {
	svg, err := p.svg()
	if err != nil {
		return drawing{}, err
	}
	d := drawing{Title: p.Title, SVG: template.HTML(svg), Remarks: p.Remarks} // gonum's, which escapes texts
	for i, s := range p.Series {
		d.Legend = append(d.Legend, legend{s.Name, template.CSS(s.shade(i))})
	}
	return d, nil
}

// bar is a value's share of the table's greatest, in percent.
func (t *table) bar(s sample) int {
	top := 0.0
	for _, r := range t.Rows {
		top = max(top, r.Value.Median)
	}
	if top <= 0 {
		return 0
	}
	return int(100 * s.Median / top)
}

const layout = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>thaw: benchmarks</title>
<style>
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --text: #1d2733; --soft: #66717d; --line: #e3e6e8; --bar: #cfe3f7; --goal: #0a7d4f; --missed: #c01c28; }
@media (prefers-color-scheme: dark) { :root { --back: #12161b; --card: #1a2027; --text: #e4e9ee; --soft: #95a1ad; --line: #2c343d; --bar: #1e3a57; --goal: #52c793; --missed: #ff7b72; } }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1rem 4rem; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .8rem; } h3 { font-size: 1rem; margin: 0 0 .6rem; }
p.where, li { color: var(--soft); } .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; } td, th { text-align: left; padding: .3rem .6rem .3rem 0; border-top: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; border-top: 0; } td.n { white-space: nowrap; } .note { color: var(--soft); font-size: .85rem; } .goal { color: var(--goal); font-size: .85rem; } .missed, .missed td { color: var(--missed); } .missed .goal { color: var(--missed); font-weight: 600; } .missed .bar { background: var(--missed); }
.bar { height: 4px; background: var(--bar); border-radius: 2px; margin-top: .2rem; }
svg { width: 100%; height: auto; display: block; overflow: visible; color: var(--text); } svg text { fill: currentColor; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .4rem 0 0; padding: 0; list-style: none; font-size: .88rem; } .legend i { display: inline-block; width: .8rem; height: .2rem; margin-right: .4rem; vertical-align: middle; }
ul.remarks { margin: .6rem 0 0; padding-left: 1.1rem; font-size: .88rem; }
</style></head><body>
<h1>thaw: benchmarks</h1>
<p class="where">{{.R.Date.Format "2 January 2006, 15:04 UTC"}} &middot; {{.R.Machine}}</p>
<p class="where">{{.R.Quiet}}</p>
<p>Figures are medians. &plusmn; is the median's 95 % confidence interval, as benchstat computes it. Where there are too few runs for one, brackets show the least and the greatest.
&times; and + compare each run with the first row's run beside it, taken in turns. ~ marks a difference that a U test does not find. CPU is the server process's own clock.
A target that is missed is <span class="missed">red</span>{{if .Missed}}: {{.Missed}} of {{.Targets}} are{{else}}; none of {{.Targets}} is{{end}}.</p>
{{if .Pictures}}<h2>Pictures</h2><div class="cards">
{{range .Pictures}}<section><h3>{{.Title}}</h3>{{.SVG}}<ul class="legend">{{range .Legend}}<li><i style="background:{{.Colour}}"></i>{{.Name}}</li>{{end}}</ul>
{{if .Remarks}}<ul class="remarks">{{range .Remarks}}<li>{{.}}</li>{{end}}</ul>{{end}}</section>
{{end}}</div>{{end}}
<h2>Figures</h2><div class="cards">
{{range $t := .R.Tables}}<section><h3>{{$t.Title}}, {{$t.Unit}}</h3><table>
{{range $t.Rows}}<tr{{if missed .}} class="missed"{{end}}><td>{{.Name}}{{if .Note}}<div class="note">{{.Note}}</div>{{end}}{{if .Target}}<div class="goal">target{{if missed .}} missed{{end}}: {{.Target}}</div>{{end}}</td>
<td class="n">{{.Value}}<div class="bar" style="width:{{bar $t .Value}}%"></div>{{with compared $t .}}<span class="note">{{.}}</span>{{end}}</td></tr>
{{end}}</table>{{if .Remarks}}<ul class="remarks">{{range .Remarks}}<li>{{.}}</li>{{end}}</ul>{{end}}</section>
{{end}}</div>
{{if .R.Notes}}<h2>Notes</h2><ul>{{range .R.Notes}}<li>{{.}}</li>{{end}}</ul>{{end}}
</body></html>
`
