// Package browser looks at the page of package status with Chromium. It is a module of its own, so
// that whoever uses the page does not download what drives a browser.
package browser
