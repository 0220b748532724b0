package browser

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/internal/echotest"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/status"
	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
}

// browser is a tab, and what its console said.
type browser struct {
	context.Context
	t *testing.T

	mu         sync.Mutex // guards complaints
	complaints []string
}

func open(t *testing.T, scripts bool) *browser {
	t.Helper()
	program := needs.Program(t, "chromium")
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox) // root in a container has no sandbox
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	t.Cleanup(func() { assert.NoError(t, chromedp.Cancel(ctx)) }) // waits for the end of the browser
	b := &browser{Context: ctx, t: t}
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded: // what violates the policy and what did not load, among others
			b.complaints = append(b.complaints, fmt.Sprint(e.Entry.Level, ": ", e.Entry.Text, " ", e.Entry.URL))
		case *runtime.EventConsoleAPICalled:
			b.complaints = append(b.complaints, fmt.Sprint(e.Type))
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, e.ExceptionDetails.Text)
		}
	}))
	_, err := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts})
	require.NoError(t, err)
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b, steps...))
}

// get is what an action gives.
func get[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	value, err := chromedp.Run(b, action)
	require.NoError(b.t, err)
	return value
}

// text is what the reader sees of an element.
func (b *browser) text(selector string) string {
	b.t.Helper()
	return get(b, chromedp.Text(chromedp.CSS(selector)))
}

// sees waits until an element says something.
func (b *browser) sees(selector, text string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return strings.Contains(b.text(selector), text) }, time.Minute, 200*time.Millisecond, text)
}

func (b *browser) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	assert.Empty(b.t, b.complaints, "the console")
}

// look leaves a picture in the folder SCREENSHOTS, for people.
func (b *browser) look(name string, width int64, scheme string) {
	b.t.Helper()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	b.prefer(scheme)
	b.do(chromedp.EmulateViewport(width, 900))
	png := get(b, chromedp.FullScreenshot(100))
	require.NoError(b.t, os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644))
}

// prefer makes the reader one who likes light or dark.
func (b *browser) prefer(scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	require.NoError(b.t, err)
}

// serve is the page of a server with some life on it.
func serve(t *testing.T) (*echotest.Server, string) {
	t.Helper()
	s := echotest.Start(t)
	page := status.New()
	t.Cleanup(func() { page.Close() })
	page.AddManager("main", s.Manager, s.Files)
	page.AddServer("echo", s.Meta, "main")
	for _, name := range []string{"alice", "bob", "<script>alert(1)</script>"} {
		_, err := s.Dial(t, s.CA, tlstest.Leaf{CommonName: name})
		require.NoError(t, err)
	}
	_, err := s.Dial(t, s.Other, tlstest.Leaf{CommonName: "carol", URIs: []string{"spiffe://example.test/carol"}})
	require.NoError(t, err)
	_, err = s.Dial(t, tlstest.NewCA(t), tlstest.Leaf{CommonName: "mallory"})
	require.Error(t, err)
	web := httptest.NewServer(page)
	t.Cleanup(web.Close)
	return s, web.URL
}

// The page loads, and shows what is in service after a rotation without being loaded again, and
// nothing is reported on the console.
func TestRotation(t *testing.T) {
	needs.Long(t)
	s, url := serve(t)
	b := open(t, true)
	before := s.Manager.Status().Certificates[0].Serial
	b.do(chromedp.Navigate(url+"/"), chromedp.Evaluate[chromedp.Void](`window.same = true`))
	assert.Contains(t, b.text("#manager-0"), before[:8])
	assert.Contains(t, b.text("#attention"), "All is well")
	assert.Contains(t, b.text("#connections"), `CN=\<script\>alert(1)\</script\>`, "as text (RFC 2253 has the backslashes)")
	assert.Contains(t, b.text("#connections"), "spiffe://example.test/carol")
	b.look("light", 1280, "light")
	b.look("dark", 1280, "dark")
	b.look("phone", 390, "light")
	b.look("phone-dark", 390, "dark")

	b.do(chromedp.Focus(chromedp.CSS("#connections-table")))
	after := s.Rotate(t)
	require.NotEqual(t, before, after)
	b.sees("#manager-0", after[:8])
	assert.NotContains(t, b.text("#manager-0"), before[:8])
	b.sees("#events", "loaded")
	assert.True(t, get(b, chromedp.Evaluate[bool](`window.same === true`)), "it was not loaded again")
	assert.Equal(t, "connections-table", get(b, chromedp.Evaluate[string](`document.activeElement.id`)), "the focus stays")

	s.Break(t)
	b.sees("#attention", "rejected")
	b.look("trouble", 1280, "light")
	b.look("trouble-phone", 390, "dark")
	b.quiet()
}

// With the keyboard alone one gets everywhere, in the order of the page, and asks who needs a CA;
// the answer stays while the page refreshes itself.
func TestKeyboard(t *testing.T) {
	needs.Long(t)
	s, url := serve(t)
	b := open(t, true)
	b.do(chromedp.Navigate(url + "/"))
	focused := func() string {
		return get(b, chromedp.Evaluate[string](`document.activeElement.id || document.activeElement.getAttribute("href")`))
	}
	for _, want := range []string{"#main", "pause", "#manager-0", "#servers", "#connections", "#impact", "#events", "connections-table", "ca"} {
		b.do(chromedp.KeyEvent("\t"))
		assert.Equal(t, want, focused())
		assert.NotEqual(t, "none", get(b, chromedp.Evaluate[string](`getComputedStyle(document.activeElement).outlineStyle`)), "one sees where one is: %s", want)
	}
	b.do(chromedp.KeyEvent("CN=" + s.Other.Certificate().Subject.CommonName)) // a list goes to what is typed
	for _, want := range []string{"ask-button", "events-table", "status.json"} {
		b.do(chromedp.KeyEvent("\t"))
		assert.Equal(t, want, focused())
	}
	b.do(chromedp.Focus(chromedp.CSS("#ask-button")), chromedp.KeyEvent("\r"), chromedp.WaitVisible(chromedp.CSS("#answer-table")))
	assert.Contains(t, b.text("#answer"), "carol")
	assert.NotContains(t, b.text("#answer"), "alice")
	b.look("impact", 1280, "light")
	b.look("impact-phone", 390, "light")
	then := b.text("#when")
	require.Eventually(t, func() bool { return b.text("#when") != then }, time.Minute, 100*time.Millisecond)
	assert.Contains(t, b.text("#answer"), "carol")
	b.quiet()
}

// Nothing is wider than the window of a phone, in any of its states.
func TestPhone(t *testing.T) {
	needs.Long(t)
	s, url := serve(t)
	s.Break(t)
	b := open(t, true)
	b.do(chromedp.EmulateViewport(320, 640), chromedp.Navigate(url+"/"))
	wide := get(b, chromedp.Evaluate[[]string](`
		[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .hide, .skip") && !e.closest("svg") &&
			e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "#" + e.id + "." + e.className)`))
	assert.Empty(t, wide)
	b.quiet()
}

// Without scripts all is there, and the page asks to be loaded again.
func TestWithoutScripts(t *testing.T) {
	needs.Long(t)
	s, url := serve(t)
	b := open(t, false)
	b.do(chromedp.Navigate(url + "/"))
	assert.Contains(t, b.text("#manager-0"), s.Manager.Status().Certificates[0].Serial[:8])
	then := b.text("#when")
	assert.Contains(t, get(b, chromedp.OuterHTML(chromedp.CSS("noscript"))), `http-equiv="refresh"`)
	require.Eventually(t, func() bool { return b.text("#when") != then }, time.Minute, 500*time.Millisecond, "it loads itself again")
	b.quiet()
}

// Every text stands out from its ground as WCAG 2.2 asks of text of this size (1.4.3: 4.5 to 1), in
// light and in dark, also when there is trouble.
func TestContrast(t *testing.T) {
	needs.Long(t)
	s, url := serve(t)
	s.Break(t)
	b := open(t, true)
	for _, scheme := range []string{"light", "dark"} {
		b.prefer(scheme)
		b.do(chromedp.Navigate(url + "/"))
		grounds := get(b, chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
		assert.Equal(t, map[string]string{"light": "rgb(250, 250, 248)", "dark": "rgb(21, 23, 26)"}[scheme], grounds)
		faint := get(b, chromedp.Evaluate[[]string](`(() => {
			const parts = color => color.match(/[\d.]+/g).map(Number);
			const luminance = color => parts(color).slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
				.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
			const ground = e => { const c = getComputedStyle(e).backgroundColor; return parts(c)[3] === 0 ? ground(e.parentElement) : c; };
			return [...document.body.querySelectorAll("*")].filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.checkVisibility()).map(e => {
				const style = getComputedStyle(e), text = luminance(e.closest("svg") ? style.fill : style.color), back = luminance(ground(e));
				return [e, (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05)];
			}).filter(([, ratio]) => ratio < 4.5).map(([e, ratio]) => e.tagName + "." + e.className + " " + e.textContent.slice(0, 30) + " " + ratio.toFixed(2));
		})()`))
		assert.Empty(t, faint, scheme)
	}
	b.quiet()
}

// Every table has a caption, every picture a text, every field a label, and the headings are in
// order.
func TestForScreenReaders(t *testing.T) {
	needs.Long(t)
	_, url := serve(t)
	b := open(t, true)
	b.do(chromedp.Navigate(url + "/"))
	wrong := get(b, chromedp.Evaluate[[]string](`(() => {
		const wrong = [], say = (e, what) => wrong.push(e.tagName + "#" + e.id + " " + what);
		for (const e of document.querySelectorAll("table")) if (!e.caption?.textContent.trim()) say(e, "has no caption");
		for (const e of document.querySelectorAll("svg")) if (e.ariaHidden !== "true" && !e.ariaLabel) say(e, "has no label");
		for (const e of document.querySelectorAll("select, button")) if (!e.labels?.length && !e.textContent.trim()) say(e, "has no label");
		for (const e of document.querySelectorAll("th")) if (!e.scope) say(e, "has no scope");
		for (const e of document.querySelectorAll("[data-live], [tabindex]")) if (!e.id) say(e, "has no id");
		for (const e of document.querySelectorAll("[style]")) say(e, "has a style of its own");
		const names = [...document.querySelectorAll("section, [role=region]")].map(e => e.ariaLabel || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent);
		for (const name of names) if (!name || names.indexOf(name) !== names.lastIndexOf(name)) wrong.push("regions have the name " + name);
		let last = 0;
		for (const e of document.querySelectorAll("h1, h2, h3")) {
			if (+e.tagName[1] > last + 1) say(e, "skips a level");
			last = +e.tagName[1];
		}
		const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
		for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(id + " is there twice");
		return wrong;
	})()`))
	assert.Empty(t, wrong)
	b.quiet()
}
