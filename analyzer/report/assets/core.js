// Helpers, the theme, sorting of tables, tables decoded when opened, printing. The files of this folder are joined in the
// order core, data, plot, views, tree, viewer inside one function; text from a dump enters the page by textContent alone.
const finite = Number.isFinite;
const on = (node, name, act) => node.addEventListener(name, act);
const byId = (id) => document.getElementById(id);
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// el("p", {class: "x", onclick: f}, "text", node, ...): an element; strings become text.
function el(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG_TAGS.has(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) on(node, name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const SVG_TAGS = new Set(["svg", "path", "g", "text", "circle", "rect"]);

const remembered = {
  get(name) { try { return localStorage.getItem(`analyzer-${name}`); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(`analyzer-${name}`, value); } catch { /* private mode: not kept */ } },
};

const count = (n) => n.toLocaleString("en");
const fixed = (x, digits = 2) => finite(x) ? x.toFixed(digits).replace("-", "−") : x === Infinity ? "∞" : "–";
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const options = (values, chosen) => values.map(([value, text]) => el("option", { value, selected: value === chosen }, text));
const field = (label, control) => { control.setAttribute("aria-label", label); return el("label", {}, el("span", {}, label), control); };

const root = document.documentElement;
const onTheme = [];
{
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const kept = remembered.get("theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  const name = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use the ${button.textContent.toLowerCase()} theme`);
    for (const f of onTheme) f();
  };
  const button = el("button", { id: "theme", type: "button", onclick() { root.dataset.theme = dark() ? "light" : "dark"; remembered.set("theme", root.dataset.theme); name(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
  $("header").append(button);
}
const swatch = document.body.appendChild(el("i", { hidden: true }));
const ink = (name) => { swatch.style.color = `var(--${name})`; return getComputedStyle(swatch).color; }; // as the canvas wants it

const numeric = (text) => { const x = parseFloat(text.replace(/,/g, "").replace(/−/g, "-")); return Number.isNaN(x) ? null : x; };
function compareCells(a, b) {
  const x = numeric(a), y = numeric(b);
  if (x !== null && y !== null) return x - y;
  if (x !== null || y !== null) return x !== null ? -1 : 1;
  return a.localeCompare(b, "en");
}
function sortable(table) {
  for (const head of $$("thead th", table)) {
    const button = el("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    on(button, "click", () => {
      const body = table.tBodies[0];
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const text = (row) => row.cells[head.cellIndex].textContent;
      body.append(...[...body.rows].sort((a, b) => sign * compareCells(text(a), text(b))));
    });
  }
}

// A table of texts (or nodes); `right` says which columns are numbers.
function grid(columns, rows, right = columns.map(() => false), label = columns.slice(0, 4).join(", ")) {
  const side = (i) => ({ class: right[i] ? "r" : null });
  const table = el("table", { class: "sort" },
    el("thead", {}, el("tr", {}, ...columns.map((c, i) => el("th", { scope: "col", ...side(i) }, c)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((c, i) => el("td", side(i), c))))));
  sortable(table);
  return el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": `Table: ${label}` }, table);
}

for (const table of $$("table.sort")) sortable(table);
for (const details of $$("details[data-pack]")) {
  on(details, "toggle", async () => {
    const place = $("div", details);
    if (!details.open || place.childElementCount) return;
    try {
      const { columns, rows, right } = await unpack(details.dataset.pack);
      place.replaceChildren(grid(columns, rows, right));
    } catch (error) { place.textContent = String(error.message || error); }
  });
}
for (const button of $$("button[data-copy]")) on(button, "click", () => copy($(`#${button.dataset.copy}`).textContent, button));
async function copy(text, button) {
  const was = button.textContent;
  try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch { button.textContent = "Not allowed"; }
  setTimeout(() => { button.textContent = was; }, 1500);
}

// A printed page shows what is folded away on the screen; a long table stays in its csv.
{
  let opened = [];
  addEventListener("beforeprint", () => { opened = $$("details:not([open]):not([data-pack])"); for (const d of opened) d.open = true; });
  addEventListener("afterprint", () => { for (const d of opened) d.open = false; });
}
