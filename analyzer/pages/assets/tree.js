// The tree of prefixes after Yue et al. (2504.13837), figure 1: paths that samples share.
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

// Which of the page's traces take a node (share its first token and all before) and which follow it to its end: the
// tree is grown from the paths that are drawn, and a trace beside them may still go part of the way.
function spread(node, traces) {
	const { from, to, piece, children } = node, after = (x) => to < x.n ? x.pieces[to] : "";
	const along = (x) => { for (let t = from; t < to; t++) if (x.pieces[t] !== piece.pieces[t]) return false; return children.length > 0 || x.n === to; };
	node.takers = traces;
	node.through = traces.filter(along);
	for (const child of children) spread(child, node.through.filter((x) => after(x) === after(child.piece)));
	return node;
}

const nodesOf = (node) => [node, ...node.children.flatMap(nodesOf)];
const bySource = (traces, s) => traces.filter((t) => index.source[t.i] === s);
const own = (node, s) => bySource(node.through || node.traces, s);
const short = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;
const textOf = (node) => node.piece.pieces.slice(node.from, node.to).join("");

fillIn("prefixes", (host) => {
	const able = index.problems.filter((_, p) => labels.some((_, s) => idsOf(s, p).some(inPage)));
	if (!able.length || !index.base) { host.append(note("The tree needs scored traces in the page.")); return; }
	const problem = select([...able].sort().map(asked), "", update), pair = twoOf(host, update);
	const only = el("input", { type: "checkbox", onchange: update });
	const prompt = el("p", { class: "prompt" }), stage = el("div", { class: "trees" }), said = el("output", { class: "said" }), lines = note("");
	host.append(filters(field("problem", problem), field("first source", pair[0]), field("second source", pair[1]), el("label", { class: "check" }, only, "correct only")), prompt, stage, said,
		el("p", { class: "legend" }, "Shade, the base's probability of the segment: ", ...SHADES.flatMap(([text], k) => [el("span", { class: `shade p${k}` }), ` ${text} `]), " · ", el("span", { class: "shade right" }), " ✓ every trace through it is correct · dotted: taken by no trace of this source that is in the page · number: traces in the page."), lines);
	// the problem that both solve most evenly
	const solved = (p) => pair.reduce((product, { value }) => { const ids = idsOf(labels.indexOf(value), p); return product * ids.filter((i) => right(i)).length / (ids.length || 1); }, 1);
	problem.value = able.reduce((best, name) => solved(index.known.get(name)) > solved(index.known.get(best)) ? name : best);
	let turn = 0, current = null, marks = new Map();

	async function update() {
		const mine = ++turn;
		const p = index.known.get(problem.value), sources = [...new Set(pair.map((s) => labels.indexOf(s.value)))];
		const ids = sources.flatMap((s) => idsOf(s, p));
		const wanted = ids.filter((i) => inPage(i) && index.tokens[i] && (!only.checked || right(i)));
		let traces;
		try { traces = await Promise.all(wanted.map(traceOf)); } catch (error) { stage.replaceChildren(alarm(error.message)); return; }
		if (mine !== turn) return;
		if (!traces.length) { stage.replaceChildren(note("No trace of these sources on this problem is in the page.")); lines.textContent = said.textContent = ""; return; }
		prompt.textContent = traces[0].prompt;
		const all = nodesOf(grow(traces, 0)).filter((n) => !n.children.length).sort((a, b) => b.traces.length - a.traces.length);
		// as many paths of each source as fit, the most frequent first
		const kept = new Set(), room = Math.floor(LEAVES / sources.length);
		for (const s of sources) all.filter((n) => own(n, s).length).slice(0, room).forEach((n) => kept.add(n));
		const tree = spread(layout(grow([...kept].flatMap((n) => n.traces), 0)), traces);
		const nodes = nodesOf(tree);
		marks = new Map(nodes.map((n) => [n, []]));
		const held = new Map(sources.map((s) => [s, `${count(bySource(traces, s).length)} of ${count(idsOf(s, p).filter((i) => !only.checked || right(i)).length)}`]));
		stage.replaceChildren(...sources.map((s) => panel(tree, nodes, s, held.get(s))));
		for (const one of $$(".wide", stage)) on(one, "scroll", () => { for (const other of $$(".wide", stage)) other.scrollLeft = one.scrollLeft; });
		const drawn = [...kept].reduce((sum, n) => sum + n.traces.length, 0);
		const parts = sources.map((s) => `${held.get(s)} of ${labels[s]}`).join(", "), whole = traces.length === ids.filter((i) => !only.checked || right(i)).length;
		lines.textContent = `In the page with tokens: ${parts}${only.checked ? ", correct ones alone" : ""}. ${whole ? "" : "The others may take any path: a dotted one is not known to be absent. "}${count(drawn)} of these traces have their whole path drawn, on ${count(kept.size)} of ${count(all.length)} different paths, the most frequent first. Arrow keys walk the tree, Enter opens a trace.`;
		current = tree;
		said.textContent = "";
	}

	function panel(tree, nodes, s, held) {
		const step = clamp((stage.clientWidth / (stage.clientWidth > 850 ? 2 : 1) - 90) / (tree.deepest + 1), 56, 150), high = 17, width = (tree.deepest + 1) * step + 54, height = Math.max(3, Math.max(...nodes.map((n) => n.row)) + 1) * high + 16;
		const x = (depth) => 6 + depth * step, y = (row) => 12 + row * high;
		const total = bySource(tree.takers, s).length;
		const paths = nodes.map((n) => {
			const mine = own(n, s), here = mine.length, sure = here && mine.every((t) => right(t.i));
			const shade = SHADES.findIndex(([, p]) => Math.exp(-n.nats) >= p);
			const x0 = x(n.depth), x1 = x(n.depth + 1), bend = x0 + 9, y0 = y((n.parent || n).row), y1 = y(n.row);
			const path = el("path", { d: `M${x0} ${y0} C${bend} ${y0} ${x0 - 2} ${y1} ${bend + 6} ${y1} L${x1} ${y1}`,
				class: `edge ${here ? sure ? "right" : `p${shade}` : bySource(n.takers, s).length ? `p${shade}` : "absent"}`, "stroke-width": here ? 1.5 + 5 * Math.sqrt(here / total) : 1 });
			const text = textOf(n).trim().replace(/\s+/g, " ");
			const label = here && text ? el("text", { x: bend + 8, y: y1 - 4, class: "label" }, short(text, Math.floor((step - 18) / 5.4))) : null;
			const end = !n.children.length && here ? el("text", { x: x1 + 4, y: y1 + 4, class: sure ? "end right" : "end" }, `${sure ? "✓ " : ""}${here}`) : null;
			const group = el("g", { onclick: () => focus(n), ondblclick: () => openNode(n, s), onpointerenter: () => tell(n) }, path, label, end);
			marks.get(n).push(group);
			return group;
		});
		const paths_ = nodes.filter((n) => !n.children.length && own(n, s).length).length, facts = `: ${held} traces in the page, ${count(paths_)} of the paths drawn`;
		const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: "application", "aria-label": labels[s] + facts,
			onkeydown: (e) => keys(e, s), onfocus: () => { if (current) focus(current); } }, ...paths);
		return el("figure", { class: "tree" }, el("figcaption", {}, badge(index.sources[s]), el("strong", {}, ` ${labels[s]}`), facts), el("div", { class: "wide" }, svg));
	}

	function tell(n) {
		const parts = [...new Set(pair.map((q) => labels.indexOf(q.value)))].map((q) => {
			const mine = own(n, q);
			return `${labels[q]} ${mine.length}${mine.length ? `, ${mine.filter((t) => right(t.i)).length} correct` : ""}`;
		});
		said.textContent = `“${short(textOf(n), 300)}”: ${n.to - n.from} tokens, ${fixed(n.nats)} nats under the base (probability ${n.nats > 12 ? Math.exp(-n.nats).toExponential(1) : fixed(Math.exp(-n.nats), 4)}); ${parts.join("; ")}.`;
	}
	function focus(n) {
		for (const group of marks.get(current) || []) group.classList.remove("on");
		current = n;
		for (const group of marks.get(n) || []) group.classList.add("on");
		tell(n);
	}
	const openNode = (n, s) => go(address((own(n, s)[0] || n.traces[0]).i));
	function keys(e, s) {
		if (!current) return;
		const { parent, children } = current, brothers = parent ? parent.children : [], at = brothers.indexOf(current);
		const next = { ArrowRight: children[0], ArrowLeft: parent, ArrowDown: brothers[at + 1], ArrowUp: brothers[at - 1] };
		if (e.key === "Enter") openNode(current, s);
		if (!(e.key in next)) return;
		e.preventDefault();
		if (next[e.key]) focus(next[e.key]);
	}

	routes.tree = (name, a, b) => {
		if (able.includes(name)) problem.value = name;
		if (labels.includes(a)) pair[0].value = a;
		if (labels.includes(b)) pair[1].value = b;
		show("tree");
		update();
	};
	// When the reader comes near: it decodes a pack.
	new IntersectionObserver((seen, observer) => { if (seen.some((s) => s.isIntersecting) && !turn) { observer.disconnect(); update(); } }, { rootMargin: "600px" }).observe(host);
});
