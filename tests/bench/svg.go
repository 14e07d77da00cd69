package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The picture's measures, in units of its viewBox.
const (
	plotWidth, plotHeight                 = 640.0, 320.0
	marginLeft, marginRight               = 64.0, 16.0
	marginTop, marginBottom               = 12.0, 44.0
	drawnWidth                            = plotWidth - marginLeft - marginRight
	drawnHeight                           = plotHeight - marginTop - marginBottom
	ticksWanted                           = 5
	smallestLog                           = 1e-9
	colours                               = 7 // classes c0 to c6 of the page's style
	pointSize                             = 2.5
	labelGap, tickGap, titleGap, halfLine = 6.0, 16.0, 34.0, 4.0
)

// scale maps values to one axis of the picture.
type scale struct {
	log      bool
	low, top float64 // of the values, or of their logarithms
	from, to float64 // in the picture
}

func scaleOf(a Axis, values []float64, from, to float64) scale {
	s := scale{log: a.Log, low: math.Inf(1), top: math.Inf(-1), from: from, to: to}
	for _, v := range values {
		if s.log {
			v = math.Log10(max(v, smallestLog))
		}
		s.low, s.top = min(s.low, v), max(s.top, v)
	}
	if !s.log {
		s.low = min(0, s.low)
	}
	if s.log && s.top-s.low < 0.5 { // what hardly differs shall look so
		s.low, s.top = s.low-0.25, s.top+0.25
	}
	if s.top-s.low < smallestLog {
		s.top = s.low + 1
	}
	return s
}

func (s scale) at(v float64) float64 {
	if s.log {
		v = math.Log10(max(v, smallestLog))
	}
	return s.from + (v-s.low)/(s.top-s.low)*(s.to-s.from)
}

// ticks are the values that the axis names.
func (s scale) ticks() []float64 {
	var out []float64
	if s.log {
		step := max(1, math.Ceil((s.top-s.low)/(2*ticksWanted)))
		parts := []float64{1}
		if s.top-s.low < 2.5 {
			parts = []float64{1, 2, 5} // within a decade
		}
		for e := math.Floor(s.low); e <= s.top+smallestLog; e += step {
			for _, p := range parts {
				if l := e + math.Log10(p); l >= s.low-smallestLog && l <= s.top+smallestLog {
					out = append(out, math.Pow(10, e)*p)
				}
			}
		}
		return out
	}
	raw := (s.top - s.low) / ticksWanted
	step := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, f := range []float64{1, 2, 5, 10} {
		if step*f >= raw {
			step *= f
			break
		}
	}
	for v := math.Ceil(s.low/step) * step; v <= s.top+step*smallestLog; v += step {
		out = append(out, v)
	}
	return out
}

// number is a tick's text.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 1e6:
		return fmt.Sprintf("%gM", math.Round(v/1e4)/100)
	case a >= 1e4:
		return fmt.Sprintf("%gk", math.Round(v/10)/100)
	case a >= 1:
		return fmt.Sprintf("%g", math.Round(v*100)/100)
	}
	return fmt.Sprintf("%.2g", v)
}

// svg draws the plot. Colours come from the page's style.
func (p *Plot) svg() string {
	var xs, ys []float64
	for _, s := range p.Series {
		for _, q := range s.Points {
			xs, ys = append(xs, q.X), append(ys, q.Y)
		}
	}
	if len(xs) == 0 {
		return ""
	}
	x := scaleOf(p.X, xs, marginLeft, marginLeft+drawnWidth)
	y := scaleOf(p.Y, ys, marginTop+drawnHeight, marginTop)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, plotWidth, plotHeight, html.EscapeString(p.Title))
	for _, t := range x.ticks() {
		at := x.at(t)
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" y1="%g" x2="%.1f" y2="%g"/><text x="%.1f" y="%g" text-anchor="middle">%s</text>`,
			at, marginTop, at, marginTop+drawnHeight, at, marginTop+drawnHeight+tickGap, number(t))
	}
	for _, t := range y.ticks() {
		at := y.at(t)
		fmt.Fprintf(&b, `<line class="grid" x1="%g" y1="%.1f" x2="%g" y2="%.1f"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`,
			marginLeft, at, marginLeft+drawnWidth, at, marginLeft-labelGap, at+halfLine, number(t))
	}
	fmt.Fprintf(&b, `<text class="axis" x="%g" y="%g" text-anchor="middle">%s</text>`, marginLeft+drawnWidth/2, marginTop+drawnHeight+titleGap, html.EscapeString(p.X.Label))
	fmt.Fprintf(&b, `<text class="axis" x="%g" y="%g" text-anchor="middle" transform="rotate(-90 %g %g)">%s</text>`,
		labelGap*2, marginTop+drawnHeight/2, labelGap*2, marginTop+drawnHeight/2, html.EscapeString(p.Y.Label))
	for i, s := range p.Series {
		class := fmt.Sprintf("c%d", i%colours)
		if s.Limit {
			class = "limit"
		}
		fmt.Fprintf(&b, `<polyline class="%s" points="`, class)
		for _, q := range s.Points {
			fmt.Fprintf(&b, "%.1f,%.1f ", x.at(q.X), y.at(q.Y))
		}
		fmt.Fprintf(&b, `"><title>%s</title></polyline>`, html.EscapeString(s.Name))
		if !s.Marked {
			continue
		}
		for _, q := range s.Points {
			fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%.1f" r="%g"><title>%s: %s, %s</title></circle>`,
				class, x.at(q.X), y.at(q.Y), pointSize, html.EscapeString(s.Name), number(q.X), number(q.Y))
		}
	}
	b.WriteString("</svg>")
	return b.String()
}
