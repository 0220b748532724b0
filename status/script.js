"use strict";
// The page fetches itself and takes over the parts that have changed. Whoever has no scripts gets a
// <meta http-equiv="refresh"> instead.
(() => {
  const interval = 5000;
  const pause = document.getElementById("pause");
  let paused = false;

  // replace keeps what the reader has: the focus, the place in a table that scrolls, the choice in a list, what is unfolded.
  function replace(old, fresh) {
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...old.querySelectorAll(".scroll")].map(e => [e.id, e.scrollLeft]);
    const chosen = [...old.querySelectorAll("select")].map(e => [e.id, e.value]);
    const opened = [...old.querySelectorAll("details[open]")].map(e => e.id);
    old.innerHTML = fresh.innerHTML;
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
    for (const [id, left] of scrolled) {
      const e = document.getElementById(id);
      if (e) e.scrollLeft = left;
    }
    for (const [id, value] of chosen) {
      const e = document.getElementById(id);
      if (e && [...e.options].some(o => o.value === value)) e.value = value;
    }
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  // selecting is true while the reader has marked text to copy in a part.
  function selecting(part) {
    const s = document.getSelection();
    return s && !s.isCollapsed && part.contains(s.anchorNode);
  }

  async function refresh() {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error("status " + answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const ids = doc => [...doc.querySelectorAll("[data-live]")].map(e => e.id).join();
    if (ids(fresh) !== ids(document)) { // a listener or a manager came or went
      replace(document.getElementById("main"), fresh.getElementById("main"));
      return;
    }
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (next.innerHTML !== part.innerHTML && !selecting(part)) replace(part, next);
    }
  }

  async function tick() {
    if (!paused && !document.hidden) {
      try {
        await refresh();
        document.getElementById("lost").hidden = true;
      } catch (error) {
        const lost = document.getElementById("lost");
        lost.textContent = "The program does not answer (" + error.message + "). What you see is old.";
        lost.hidden = false;
      }
    }
    setTimeout(tick, interval);
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
  });
  setTimeout(tick, interval);
})();
