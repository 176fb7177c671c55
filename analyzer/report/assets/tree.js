// The tree of prefixes of one problem after Yue et al. (2504.13837), figure 1: paths that samples share, drawn in the same
// place for two sources, so that one sees what the second kept of the first and what it lost.
const LEAVES = 48; // paths drawn
const SHADES = [["≥ 0.5", 0.5], ["≥ 0.1", 0.1], ["≥ 0.01", 0.01], ["≥ 10⁻⁴", 1e-4], ["less", 0]];

// Traces (with pieces and surprisal) -> a node {from, to, traces, children}; its segment is tokens from ... to - 1.
function grow(traces, from) {
  const first = traces[0];
  let to = from;
  const together = (t) => traces.every((x) => x.pieces[t] === first.pieces[t]);
  while (to < first.n && together(to)) to++;
  const node = { from, to, traces, children: [], nats: 0, piece: first };
  for (let t = from; t < to; t++) node.nats += first.surprisal[t];
  const branches = new Map();
  for (const trace of traces) {
    const next = to < trace.n ? trace.pieces[to] : "";
    if (!branches.has(next)) branches.set(next, []);
    branches.get(next).push(trace);
  }
  if (branches.size > 1) node.children = [...branches.values()].sort((a, b) => b.length - a.length).map((group) => grow(group, to));
  for (const child of node.children) child.parent = node;
  return node;
}

function layout(node, depth = 0, rows = { n: 0 }) {
  node.depth = depth;
  for (const child of node.children) layout(child, depth + 1, rows);
  node.row = node.children.length ? (node.children[0].row + node.children[node.children.length - 1].row) / 2 : rows.n++;
  node.deepest = Math.max(depth, ...node.children.map((c) => c.deepest));
  return node;
}

const nodesOf = (node) => [node, ...node.children.flatMap(nodesOf)];
const textOf = (node) => node.piece.pieces.slice(node.from, node.to).join("");

ready.then((found) => {
  const host = $("#prefixes");
  if (!found || !host) return;
  const labels = index.sources.map((s) => s.label);
  const able = index.problems.filter((_, p) => labels.some((_, s) => { const [from, to] = range(s, p); return to > from && index.pack[from] !== NONE; }));
  if (!able.length || !index.base) { host.append(el("p", { class: "note" }, "The tree needs scored traces in the page.")); return; }
  const first = Math.max(0, labels.indexOf(index.reference));
  const problem = el("select", {}, ...options(choice([...able].sort())));
  const pair = [el("select", {}, ...options(choice(labels), labels[first])), el("select", {}, ...options(choice(labels), labels.includes(host.dataset.focus) ? host.dataset.focus : labels[first === 0 ? Math.min(1, labels.length - 1) : 0]))];
  const only = el("input", { type: "checkbox", onchange: update });
  const asked = el("p", { class: "prompt" }), stage = el("div", { class: "trees" }), said = el("output", { class: "said" }), lines = el("p", { class: "note" });
  host.append(el("div", { class: "filters" }, field("problem", problem), field("first source", pair[0]), field("second source", pair[1]), el("label", { class: "check" }, only, "correct only")), asked, stage, said,
    el("p", { class: "legend" }, "Shade, the base's probability of the segment: ", ...SHADES.flatMap(([text], k) => [el("span", { class: `shade p${k}` }), ` ${text} `]), " · ", el("span", { class: "shade right" }), " ✓ every trace through it is correct · dotted: the other source alone · number: traces."), lines);
  // the problem that both solve most evenly: it has the most to show
  const solved = (p) => pair.reduce((product, { value }) => { const [from, to] = range(labels.indexOf(value), p); return product * (index.correct.subarray(from, to).filter((c) => c === 1).length / (to - from || 1)); }, 1);
  problem.value = able.reduce((best, name) => solved(index.known.get(name)) > solved(index.known.get(best)) ? name : best);
  let turn = 0, current = null, marks = new Map();

  async function update() {
    const mine = ++turn;
    const p = index.known.get(problem.value), sources = [...new Set(pair.map((s) => labels.indexOf(s.value)))];
    const ids = sources.flatMap((s) => { const [from, to] = range(s, p); return Array.from({ length: to - from }, (_, k) => from + k); });
    const wanted = ids.filter((i) => index.pack[i] !== NONE && index.tokens[i] && (!only.checked || index.correct[i] === 1));
    let traces;
    try { traces = await Promise.all(wanted.map(traceOf)); } catch (error) { stage.replaceChildren(el("p", {}, error.message)); return; }
    if (mine !== turn) return;
    if (!traces.length) { stage.replaceChildren(el("p", { class: "note" }, "No trace of these sources on this problem is in the page.")); lines.textContent = said.textContent = ""; return; }
    asked.textContent = traces[0].prompt;
    const all = nodesOf(grow(traces, 0)).filter((n) => !n.children.length).sort((a, b) => b.traces.length - a.traces.length);
    // as many paths of each source as fit, the most frequent first
    const kept = new Set(), room = Math.floor(LEAVES / sources.length);
    for (const s of sources) all.filter((n) => n.traces.some((t) => index.source[t.i] === s)).slice(0, room).forEach((n) => kept.add(n));
    const tree = layout(grow([...kept].flatMap((n) => n.traces), 0));
    const nodes = nodesOf(tree);
    marks = new Map(nodes.map((n) => [n, []]));
    stage.replaceChildren(...sources.map((s) => panel(tree, nodes, s)));
    for (const one of $$(".wide", stage)) on(one, "scroll", () => { for (const other of $$(".wide", stage)) other.scrollLeft = one.scrollLeft; });
    const drawn = [...kept].reduce((sum, n) => sum + n.traces.length, 0);
    const parts = sources.map((s) => `${labels[s]} ${count(traces.filter((t) => index.source[t.i] === s).length)}`).join(", ");
    lines.textContent = `${count(drawn)} of ${count(ids.length)} traces drawn (in the page${only.checked ? " and correct" : ""}: ${parts}), on ${count(kept.size)} of ${count(all.length)} different paths, the most frequent first. Arrow keys walk the tree, Enter opens a trace.`;
    current = tree;
    said.textContent = "";
  }

  function panel(tree, nodes, s) {
    const step = clamp((stage.clientWidth / (stage.clientWidth > 850 ? 2 : 1) - 90) / (tree.deepest + 1), 56, 150), high = 17, width = (tree.deepest + 1) * step + 54, height = Math.max(3, Math.max(...nodes.map((n) => n.row)) + 1) * high + 16;
    const x = (depth) => 6 + depth * step, y = (row) => 12 + row * high;
    const number = (n) => n.traces.filter((t) => index.source[t.i] === s).length;
    const total = number(tree);
    const paths = nodes.map((n) => {
      const here = number(n), right = here && n.traces.every((t) => index.source[t.i] !== s || index.correct[t.i] === 1);
      const shade = SHADES.findIndex(([, p]) => Math.exp(-n.nats) >= p);
      const from = n.parent ? n.parent : n, leaf = !n.children.length;
      const x0 = x(n.depth), x1 = x(n.depth + 1), bend = x0 + 9;
      const path = el("path", { d: `M${x0} ${y(from.row)} L${n.parent ? x0 : x0 + 1} ${y(from.row)} C${bend} ${y(from.row)} ${x0 - 2} ${y(n.row)} ${bend + 6} ${y(n.row)} L${x1} ${y(n.row)}`,
        class: `edge ${here ? right ? "right" : `p${shade}` : "absent"}`, "stroke-width": here ? 1.5 + 5 * Math.sqrt(here / total) : 1 });
      const text = textOf(n).trim().replace(/\s+/g, " ");
      const room = Math.floor((step - 18) / 5.4);
      const label = here && text ? el("text", { x: bend + 8, y: y(n.row) - 4, class: "label" }, text.length > room ? `${text.slice(0, room - 1)}…` : text) : null;
      const end = leaf && here ? el("text", { x: x1 + 4, y: y(n.row) + 4, class: right ? "end right" : "end" }, `${right ? "✓ " : ""}${here}`) : null;
      const group = el("g", { onclick: () => focus(n), ondblclick: () => openNode(n, s), onpointerenter: () => tell(n) }, path, label, end);
      marks.get(n).push(group);
      return group;
    });
    const share = nodes.filter((n) => !n.children.length && number(n)).length;
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: "application", "aria-label": `${labels[s]}: traces ${count(total)}, paths ${count(share)}`,
      onkeydown: (e) => keys(e, s), onfocus: () => { if (current) focus(current); } }, ...paths);
    return el("figure", { class: "tree" }, el("figcaption", {}, badge(index.sources[s]), el("strong", {}, ` ${labels[s]}`), `: traces ${count(total)}, paths ${count(share)}`), el("div", { class: "wide" }, svg));
  }

  function tell(n) {
    const parts = [...new Set(pair.map((q) => labels.indexOf(q.value)))].map((q) => {
      const own = n.traces.filter((t) => index.source[t.i] === q);
      return `${labels[q]} ${own.length}${own.length ? `, ${own.filter((t) => index.correct[t.i] === 1).length} correct` : ""}`;
    });
    const text = textOf(n);
    said.textContent = `“${text.length > 300 ? `${text.slice(0, 300)}…` : text}”: ${n.to - n.from} tokens, ${fixed(n.nats)} nats under the base (probability ${n.nats > 12 ? Math.exp(-n.nats).toExponential(1) : fixed(Math.exp(-n.nats), 4)}); ${parts.join("; ")}.`;
  }
  function focus(n) {
    for (const group of marks.get(current) || []) group.classList.remove("on");
    current = n;
    for (const group of marks.get(n) || []) group.classList.add("on");
    tell(n);
  }
  function openNode(n, s) {
    const own = n.traces.find((t) => index.source[t.i] === s) || n.traces[0];
    go(address(own.i));
  }
  function keys(e, s) {
    const brothers = current?.parent?.children || [];
    const next = { ArrowRight: current?.children[0], ArrowLeft: current?.parent, ArrowDown: brothers[brothers.indexOf(current) + 1], ArrowUp: brothers[brothers.indexOf(current) - 1] };
    if (e.key === "Enter" && current) openNode(current, s);
    if (!(e.key in next)) return;
    e.preventDefault();
    if (next[e.key]) focus(next[e.key]);
  }

  for (const control of [problem, ...pair]) on(control, "change", update);
  routes.tree = (name, a, b) => {
    if (able.includes(name)) problem.value = name;
    if (labels.includes(a)) pair[0].value = a;
    if (labels.includes(b)) pair[1].value = b;
    update();
    show("tree");
  };
  // Only drawn when the reader comes near: it decodes a pack.
  new IntersectionObserver((seen, observer) => { if (seen.some((s) => s.isIntersecting) && !turn) { observer.disconnect(); update(); } }, { rootMargin: "600px" }).observe(host);
});
