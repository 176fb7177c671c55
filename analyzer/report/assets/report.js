"use strict";
// Without this script the page reads the same: it adds a theme button and sorting of tables by their headings.
(() => {
  const root = document.documentElement;
  const store = {
    get() { try { return localStorage.getItem("analyzer-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("analyzer-theme", value); } catch { /* private mode: not kept */ } },
  };
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const kept = store.get();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  const button = document.createElement("button");
  button.id = "theme";
  button.type = "button";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Use the ${button.textContent.toLowerCase()} theme`); };
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; store.set(root.dataset.theme); name(); });
  name();
  document.querySelector("header").append(button);

  const number = (text) => { const x = parseFloat(text.replaceAll(",", "").replaceAll("\u2212", "-")); return Number.isNaN(x) ? null : x; };
  const compare = (a, b) => {
    const x = number(a), y = number(b);
    if (x !== null && y !== null) return x - y;
    if (x !== null || y !== null) return x !== null ? -1 : 1;
    return a.localeCompare(b, "en");
  };
  for (const head of document.querySelectorAll("table.sort thead th")) {
    const sort = document.createElement("button");
    sort.type = "button";
    sort.textContent = head.textContent;
    head.replaceChildren(sort);
    sort.addEventListener("click", () => {
      const body = head.closest("table").tBodies[0];
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const text = (row) => row.cells[head.cellIndex].textContent;
      body.append(...[...body.rows].sort((a, b) => sign * compare(text(a), text(b))));
    });
  }
  // A printed page shows what is folded away on the screen.
  let opened = [];
  addEventListener("beforeprint", () => { opened = [...document.querySelectorAll("details:not([open])")]; for (const d of opened) d.open = true; });
  addEventListener("afterprint", () => { for (const d of opened) d.open = false; });
})();
