// Helpers, theme, tables, printing. The files are joined in the order core, data, plot, views, tree, viewer inside one
// function; text from a dump enters the page by textContent alone.
const finite = Number.isFinite;
const on = (node, name, act) => node.addEventListener(name, act);
const byId = (id) => document.getElementById(id);
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// el("p", {class: "x", onclick: f}, "text", node, ...); strings become text.
function el(tag, attributes = {}, ...children) {
	const node = document.createElementNS(SVG_TAGS.has(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) on(node, name.slice(2), value);
		else if (value != null && value !== false) node.setAttribute(name, value === true ? "" : value);
	}
	node.append(...children.filter((child) => child != null));
	return node;
}
const SVG_TAGS = new Set(["svg", "path", "g", "text", "circle", "rect"]);

function remembered(name, value) { // in private mode nothing is kept
	try { if (value) localStorage.setItem(`analyzer-${name}`, value); return localStorage.getItem(`analyzer-${name}`); } catch { return null; }
}

const count = (n) => n.toLocaleString("en");
const fixed = (x, digits = 2) => finite(x) ? x.toFixed(digits).replace("-", "−") : x === Infinity ? "∞" : "–";
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const select = (values, chosen, onchange) => {
	const node = el("select", {}, ...options(values, chosen));
	if (onchange) on(node, "change", onchange);
	return node;
};
const options = (values, chosen) => values.map(([value, text]) => el("option", { value, selected: value === chosen }, text));
const choice = (labels) => labels.map((s) => [s, s]);
const field = (label, control) => { control.setAttribute("aria-label", label); return el("label", {}, el("span", {}, label), control); };
const filters = (...fields) => el("div", { class: "filters" }, ...fields);
const button = (text, onclick, more) => el("button", { type: "button", onclick, ...more }, text);
const note = (text, more) => el("p", { class: "note", ...more }, text);
const alarm = (text) => note(text, { role: "alert" });

const root = document.documentElement;
const onTheme = [];
{
	const system = matchMedia("(prefers-color-scheme: dark)"), dark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
	if (remembered("theme")) root.dataset.theme = remembered("theme");
	const name = () => {
		toggle.textContent = dark() ? "Light" : "Dark";
		toggle.setAttribute("aria-label", `Use the ${toggle.textContent.toLowerCase()} theme`);
		for (const f of onTheme) f();
	};
	const toggle = button("", () => { root.dataset.theme = dark() ? "light" : "dark"; remembered("theme", root.dataset.theme); name(); }, { id: "theme" });
	on(system, "change", name);
	name();
	$("header").append(toggle);
}
const swatch = document.body.appendChild(el("i", { hidden: true }));
const ink = (name) => { swatch.style.color = `var(--${name})`; return getComputedStyle(swatch).color; };

const numeric = (text) => parseFloat(text.replace(/,/g, "").replace("−", "-"));
function compareCells(a, b) {
	const x = numeric(a), y = numeric(b), odd = Number.isNaN(x) - Number.isNaN(y);
	return odd || (Number.isNaN(x) ? a.localeCompare(b, "en") : x - y);
}
function sortable(table) {
	for (const head of $$("thead th", table)) {
		head.replaceChildren(button(head.textContent, () => {
			const body = table.tBodies[0], sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
			for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
			head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
			const text = (row) => row.cells[head.cellIndex].textContent;
			body.append(...[...body.rows].sort((a, b) => sign * compareCells(text(a), text(b))));
		}));
	}
}

// A table of texts (or nodes); `right` says which columns are numbers.
function grid(columns, rows, right = [], label = columns.slice(0, 4).join(", ")) {
	const side = (i) => ({ class: right[i] ? "r" : null });
	const table = el("table", {},
		el("thead", {}, el("tr", {}, ...columns.map((c, i) => el("th", { scope: "col", ...side(i) }, c)))),
		el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((c, i) => el("td", side(i), c))))));
	sortable(table);
	linkKeys(table);
	return reached(el("div", { class: "wide", role: "group", "aria-label": `Table: ${label}` }, table));
}
// What scrolls can be reached with the keyboard; what does not is no stop on the way.
const scrolls = new ResizeObserver((entries) => { for (const { target } of entries) if (target.scrollWidth > target.clientWidth + 1 || target.scrollHeight > target.clientHeight + 1) target.tabIndex = 0; else target.removeAttribute("tabindex"); });
const reached = (box) => { scrolls.observe(box); return box; };

$$(".wide, figure.w2").forEach(reached);
for (const table of $$(".sort table")) sortable(table);
for (const details of $$("details[data-pack]")) {
	on(details, "toggle", async () => {
		const place = $("div", details);
		if (!details.open || place.childElementCount) return;
		try {
			const { columns, rows, right } = await unpack(details.dataset.pack);
			place.replaceChildren(grid(columns, rows, right));
		} catch (error) { place.textContent = error.message; }
	});
}
for (const node of $$("button[data-copy]")) on(node, "click", () => copy(byId(node.dataset.copy).textContent, node));
async function copy(text, node) {
	const was = node.textContent;
	try { await navigator.clipboard.writeText(text); node.textContent = "Copied"; } catch { node.textContent = "Not allowed"; }
	setTimeout(() => { node.textContent = was; }, 1500);
}
