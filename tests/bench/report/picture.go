package main

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"image/color"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// picture is lines over a common axis.
type picture struct {
	Title   string
	X, Y    axis
	Series  []series
	Remarks []string
}

// axis says what runs along an edge of the picture.
type axis struct {
	Label string
	Log   bool
}

// series is one line.
type series struct {
	Name   string
	Points []struct{ X, Y float64 }
	Marked bool // each point was measured and is shown; else the line alone is
	Limit  bool // a line to compare with, not a measurement
}

// marked reports whether all that the picture shows are single points.
func (p *picture) marked() bool {
	return !slices.ContainsFunc(p.Series, func(s series) bool { return !s.Marked })
}

// print writes the points for people at a terminal.
func (p *picture) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %s by %s\n", p.Title, p.Y.Label, p.X.Label)
	name := 0
	for _, s := range p.Series {
		name = max(name, utf8.RuneCountInString(s.Name))
	}
	for _, s := range p.Series {
		line := fmt.Sprintf("  %-*s ", name, s.Name)
		for _, at := range s.Points {
			line += fmt.Sprintf("  %g: %s", at.X, number(at.Y))
		}
		fmt.Fprintln(w, line)
	}
	for _, remark := range p.Remarks {
		fmt.Fprintf(w, "  %s\n", remark)
	}
}

// Measures of a picture.
const (
	width, height = 7 * vg.Inch, 4 * vg.Inch
	margin        = 20   // right of the axis: a reader's font may be wider than the one that the marks are laid out with
	smallest      = 1e-9 // what a logarithmic axis makes of 0
)

// hue is a series' colour: one that can be told from the others on white and on
// black.
func hue(i int) color.RGBA {
	list := []color.RGBA{
		{0x2f, 0x86, 0xe0, 255}, {0xdb, 0x76, 0x1f, 255}, {0x3b, 0x9d, 0x66, 255}, {0x9d, 0x6a, 0xd6, 255},
		{0xd8, 0x46, 0x5c, 255}, {0x1f, 0x98, 0xa3, 255}, {0x9a, 0x87, 0x10, 255},
	}
	return list[i%len(list)]
}

// grey is that of lines to compare with.
func grey() color.RGBA { return color.RGBA{0x88, 0x90, 0x98, 255} }

// shade is a series' colour in CSS.
func (s series) shade(i int) string {
	c := hue(i)
	if s.Limit {
		c = grey()
	}
	return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B)
}

var errEmpty = errors.New("there is nothing to draw")

// svg draws the picture. Its text has the colour of the page's.
func (p *picture) svg() (string, error) {
	g := plot.New()
	g.BackgroundColor = color.Transparent
	g.X.Label.Text, g.Y.Label.Text = p.X.Label, p.Y.Label
	for _, style := range []*draw.TextStyle{&g.X.Label.TextStyle, &g.Y.Label.TextStyle, &g.X.Tick.Label, &g.Y.Tick.Label} {
		style.Font.Variant, style.Font.Size = "Sans", 12
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.NRGBA{0x88, 0x90, 0x98, 0x50}, color.NRGBA{0x88, 0x90, 0x98, 0x50}
	g.Add(grid)
	drawn := 0
	for i, s := range p.Series {
		if len(s.Points) == 0 {
			continue
		}
		points := make(plotter.XYs, len(s.Points))
		for k, q := range s.Points {
			points[k] = plotter.XY{X: p.X.place(q.X), Y: p.Y.place(q.Y)}
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return "", fmt.Errorf("draw %s: %w", s.Name, err)
		}
		line.Color, line.Width, dots.Color, dots.Shape, dots.Radius = hue(i), 1.6, hue(i), draw.CircleGlyph{}, 2.4
		if s.Limit {
			line.Color, line.Dashes = grey(), []vg.Length{5, 4}
		}
		if g.Add(line); s.Marked {
			g.Add(dots)
		}
		drawn++
	}
	if drawn == 0 {
		return "", errEmpty
	}
	p.X.scale(&g.X)
	p.Y.scale(&g.Y)
	canvas := vgsvg.New(width, height)
	g.Draw(draw.Crop(draw.New(canvas), 0, -margin, 0, 0))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", err
	}
	_, text, ok := strings.Cut(b.String(), "<svg ")
	if !ok {
		return "", errEmpty
	}
	text = strings.NewReplacer("#000000", "currentColor", "font-family:Liberation Sans", "font-family:system-ui").Replace(text)
	return `<svg role="img" aria-label="` + html.EscapeString(p.Title) + `" ` + text, nil
}

// alone draws the picture as a file, with its title and a legend above, which follows
// the reader's light or dark colours.
func (p *picture) alone() (string, error) {
	inner, err := p.svg()
	if err != nil {
		return "", err
	}
	const w, h, line = 700, 420, 18
	top := line * (len(p.Series) + 2)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d">`+"\n", w, h+top)
	b.WriteString("<style>:root{color:#1f2328} text{font-family:system-ui} @media (prefers-color-scheme: dark){:root{color:#e6edf3}}</style>\n")
	fmt.Fprintf(&b, `<text x="16" y="%d" font-size="15" fill="currentColor">%s</text>`+"\n", line, html.EscapeString(p.Title))
	for i, s := range p.Series {
		fmt.Fprintf(&b, `<text x="16" y="%d" font-size="13" fill="%s">&#9679; %s</text>`+"\n", line*(i+2), s.shade(i), html.EscapeString(s.Name))
	}
	fmt.Fprintf(&b, `<svg x="0" y="%d" width="%d" height="%d">%s</svg>`+"\n</svg>\n", top, w, h, inner[strings.Index(inner, "<svg"):])
	return b.String(), nil
}

// place is where a value stands on the axis.
func (a axis) place(v float64) float64 {
	if a.Log {
		return max(v, smallest)
	}
	return v
}

// scale sets what the axis shows: with a logarithm half a decade at least, since
// what hardly differs shall look so; else from zero.
func (a axis) scale(to *plot.Axis) {
	if !a.Log {
		to.Min, to.Tick.Marker = min(0, to.Min), plot.TickerFunc(plain)
		if to.Max-to.Min < smallest {
			to.Max = to.Min + 1
		}
		return
	}
	if math.Log10(to.Max/to.Min) < 0.5 {
		to.Min, to.Max = to.Min/1.8, to.Max*1.8
	}
	to.Scale, to.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
}

// plain marks a linear axis, without zeros behind a point.
func plain(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ticks {
		if !ticks[i].IsMinor() {
			ticks[i].Label = fmt.Sprintf("%g", math.Round(ticks[i].Value*1e6)/1e6)
		}
	}
	return ticks
}

// decades marks a logarithmic axis: 1, 2 and 5 where it is short, else the powers
// of ten, of few of which it may leave some out.
func decades(low, high float64) []plot.Tick {
	span := math.Log10(high / low)
	parts, step := []float64{1}, max(1, math.Ceil(span/8))
	if span < 2.5 {
		parts = []float64{1, 2, 5}
	}
	var out []plot.Tick
	for e := math.Floor(math.Log10(low)); e <= math.Log10(high); e += step {
		for _, m := range parts {
			if v := m * math.Pow(10, e); v >= low*(1-smallest) && v <= high*(1+smallest) {
				out = append(out, plot.Tick{Value: v, Label: fmt.Sprintf("%g", math.Round(v*1e9)/1e9)})
			}
		}
	}
	return out
}
