package status

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's parts
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"strings"
	"time"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed style.css
	styleCSS string
	//go:embed script.js
	scriptJS string
)

// policy lets the page run its own style and script, which are known by their hashes, fetch itself
// and send its own form.
var policy = fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	hashOf(styleCSS), hashOf(scriptJS))

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"style":  func() template.CSS { return template.CSS(styleCSS) },
	"script": func() template.JS { return template.JS(scriptJS) },
	"ticks":  func() []tick { return ticks },
	"less":   func(a, b float64) float64 { return max(0, a-b) },
	"since":  func(now, t time.Time) string { return span(now.Sub(t)) },
	"until":  func(now, t time.Time) string { return relative(t.Sub(now)) },
	"stamp":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"clock":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"date":   date,
	"bytes":  size,
	"short":  short,
	"plural": plural,
	"count":  count,
	"head":   func(text string) string { head, _, _ := strings.Cut(text, ":"); return head },
}).Parse(pageHTML))

// known reports whether the page is at the path of the request. A program may serve it below any
// path, with or without http.StripPrefix: if a ServeMux matched the request, its pattern has that
// path.
func known(r *http.Request) bool {
	_, mounted, matched := strings.Cut(r.Pattern, "/")
	mounted = "/" + mounted
	if matched && mounted == r.URL.Path {
		return true
	}
	folder, last := path.Split(r.URL.Path)
	if last != "" && last != "status.json" && last != "healthz" {
		return false
	}
	return !matched || folder == "" || folder == "/" || folder == mounted || strings.Contains(mounted, "{")
}

// wantsJSON follows the path and, at any other path, the Accept header, in which a browser names
// HTML first.
func wantsJSON(r *http.Request) bool {
	if path.Base(r.URL.Path) == "status.json" {
		return true
	}
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(kind) {
		case "text/html":
			return false
		case "application/json":
			return true
		}
	}
	return false
}

func writeJSON(w http.ResponseWriter, v *view) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, "status: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // an error is the reader's
}

func writeHTML(w http.ResponseWriter, v *view) {
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		http.Error(w, "status: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // an error is the reader's
}

// relative is a time from now in words.
func relative(d time.Duration) string {
	if d < 0 {
		return span(d.Abs()) + " ago" // -d overflows where Sub was of the year 1
	}
	return "in " + span(d)
}

// size is a number of bytes in the words of people.
func size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/1000, 0
	for ; value >= 999.95 && prefix < 4; prefix++ {
		value /= 1000
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTP"[prefix])
}

// count is a whole number, with commas.
func count(n any) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// short is enough of a serial number to tell it from others. CAs that count have numbers that begin
// alike, others have numbers that end alike.
func short(serial string) string {
	if len(serial) > 16 {
		return serial[:8] + "…" + serial[len(serial)-6:]
	}
	return serial
}
