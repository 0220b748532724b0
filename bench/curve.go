package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// curve measures what connections cost, from ten to the whole crowd, and draws it.
func curve(s settings, out, progress io.Writer) error {
	r, err := rounds(s, []workload{find("curve")}, progress)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "all active\traw: requests\tours\traw: CPU\tours\traw: RSS per connection\tours")
	for _, n := range stepsOf(s.Crowd) {
		fmt.Fprint(t, stepRow(n))
		for _, f := range []metric{throughput, efficiency, memory} {
			for _, variant := range []string{raw, ours} {
				fmt.Fprintf(t, "\t%s", f.show(r.absolute(key{stepRow(n), variant}, f).median))
			}
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	steps := stepsOf(s.Crowd)
	last := stepRow(steps[len(steps)-1])
	fmt.Fprintf(out, "\nA million idle connections, if each costs what one of %s does:\n", last)
	for _, variant := range []string{raw, ours} {
		fmt.Fprintf(out, "  %s: %.1f GiB resident, and %s of one core for their handshakes\n", variant,
			r.absolute(key{last, variant}, memory).median*1e6/(1<<30),
			time.Duration(1e6/r.absolute(key{opening, variant}, efficiency).median).Round(time.Second))
	}
	return os.WriteFile(s.Curve, []byte(draw(r, steps)), 0o644)
}

// draw makes a picture of two panels, requests per second and memory per connection.
func draw(r results, steps []int) string {
	var b strings.Builder
	fmt.Fprint(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 300" font-family="sans-serif" font-size="12">
<rect width="800" height="300" fill="white"/>
`)
	thousands := func(v float64) float64 { return v / 1000 }
	kibibytes := func(v float64) float64 { return v / 1024 }
	panel(&b, 50, "1,000 requests per second, all connections active", r, steps, throughput, thousands)
	panel(&b, 450, "KiB resident per idle connection, after GC", r, steps, memory, kibibytes)
	b.WriteString("</svg>\n")
	return b.String()
}

func panel(b *strings.Builder, left float64, title string, r results, steps []int, f metric, unit func(float64) float64) {
	const top, width, height = 40.0, 310.0, 210.0
	colours := map[string]string{raw: "#888888", ours: "#0b6e4f"}
	highest := 0.0
	for _, n := range steps {
		for variant := range colours {
			highest = max(highest, unit(r.absolute(key{stepRow(n), variant}, f).median))
		}
	}
	scale := niceAbove(highest)
	x := func(i int) float64 { return left + width*float64(i)/float64(max(1, len(steps)-1)) }
	y := func(v float64) float64 { return top + height - height*v/scale }
	fmt.Fprintf(b, "<text x=\"%.0f\" y=\"20\" font-weight=\"bold\">%s</text>\n", left, title)
	for i := range 5 {
		v := scale * float64(i) / 4
		fmt.Fprintf(b, "<line x1=\"%.0f\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\" stroke=\"#dddddd\"/>"+
			"<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", left, y(v), left+width, y(v), left-6, y(v)+4, v)
	}
	for i, n := range steps {
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%d</text>\n", x(i), top+height+18, n)
	}
	fmt.Fprintf(b, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">connections</text>\n", left+width/2, top+height+36)
	for _, variant := range []string{raw, ours} {
		var points []string
		for i, n := range steps {
			s := r.absolute(key{stepRow(n), variant}, f)
			if s.n == 0 {
				continue
			}
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(i), y(unit(s.median))))
			// The whisker goes from quartile to quartile.
			fmt.Fprintf(b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n",
				x(i), y(min(unit(s.high), scale)), x(i), y(max(0, unit(s.low))), colours[variant])
		}
		if len(points) == 0 {
			continue
		}
		last := strings.Split(points[len(points)-1], ",")
		fmt.Fprintf(b, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n"+
			"<text x=\"%s\" y=\"%s\" dx=\"6\" dy=\"4\" fill=\"%s\">%s</text>\n",
			strings.Join(points, " "), colours[variant], last[0], last[1], colours[variant], variant)
	}
}

// niceAbove is the next round number, for the end of an axis.
func niceAbove(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, times := range []float64{1, 2, 4, 5, 8} {
		if v <= times*power {
			return times * power
		}
	}
	return 10 * power
}
