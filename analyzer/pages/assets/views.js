// The map of clusters, and two sources problem by problem. No interval is made here: an analysis gives those.
fillIn("map", (host) => {
	// in a scattered order: no source lies on top of the others
	const ids = [...index.x.keys()].filter((i) => finite(index.x[i])).sort((a, b) => Math.imul(a, 2654435769) - Math.imul(b, 2654435769));
	if (!ids.length) { host.append(note("No analysis placed the traces on a map.")); return; }
	const excess = ids.map((i) => index.z[i]).filter(finite).sort((a, b) => a - b), top = excess[Math.floor(excess.length * 0.95)];
	const shade = {}, modes = { // name, look, words
		source: ["source", sourceOf, "Marker and colour: the source. Filled: correct."],
		correct: ["correctness", (i) => ({ color: shade[["outside", "inside", "muted"][index.correct[i]]], marker: ["X", "o", "s"][index.correct[i]] }), "Filled circle: correct; cross: wrong; square: not known."],
		z: ["excess surprisal", (i) => ({ color: shade.heat, marker: index.z[i] > top ? "^" : "o", alpha: clamp(index.z[i] / (top || 1), 0.1, 1) || 0.05, filled: true }), "The stronger, the larger the excess surprisal z under the base; triangle: among the top 5 %."],
	};
	const colour = select(Object.entries(modes).map(([k, [name]]) => [k, name]), "source", update);
	const problems = [...new Set(ids.map(problemOf))].sort();
	const problem = select([["", `all ${count(problems.length)}`], ...problems.map(asked)], "", update);
	const box = el("div", { class: "scatter" }), legend = el("p", { class: "legend" });
	const boxes = index.sources.map((s) => el("input", { type: "checkbox", checked: true, onchange: update }));
	host.append(filters(field("colour", colour), field("problem", problem),
		el("fieldset", {}, el("legend", {}, "sources"), ...index.sources.map((s, k) => el("label", { class: "check" }, boxes[k], badge(s), s.label)))), box, legend);
	const plot = scatter(box, { label: "Map of traces around the mean of their problem", say: describe, open: (i) => go(address(i)) });
	function describe(i) {
		return `${keyOf(i)}: ${rightness[index.correct[i]]}, cluster ${index.cluster[i]} of its problem, excess z ${fixed(index.z[i])}, ${fixed(index.nll[i])} nats per token, ${count(index.tokens[i])} tokens${index.exemplar[i] ? ", exemplar" : ""}`;
	}
	function update() {
		const chosen = ids.filter((i) => boxes[index.source[i]].checked && (!problem.value || problemOf(i) === problem.value));
		for (const name of ["outside", "inside", "muted", "heat"]) shade[name] = ink(name); // slow to ask for at every point
		const [, look, said] = modes[colour.value];
		plot.show({ ids: chosen, x: (i) => index.x[i], y: (i) => index.y[i], look: (i) => ({ filled: right(i), ring: problem.value && index.exemplar[i], ...look(i) }), xlabel: "first principal component (a.u.)", ylabel: "second principal component (a.u.)" });
		legend.textContent = `${count(chosen.length)} traces. ${said} Ringed, with one problem chosen: the exemplar of its cluster.`;
	}
	onTheme.push(update);
	update();
});

function badge({ color, marker }) {
	const canvas = el("canvas", { width: 24, height: 24, class: "badge", "aria-hidden": "true" });
	const c = canvas.getContext("2d");
	c.fillStyle = c.strokeStyle = color;
	c.lineWidth = 3;
	mark(c, marker, 12, 12, 7);
	c.fill();
	c.stroke();
	return canvas;
}

// Two sources to choose: the reference, and the one that the page's verdicts speak of first.
function twoOf(host, update) {
	const start = Math.max(0, labels.indexOf(index.reference)), other = labels.includes(host.dataset.focus) ? host.dataset.focus : labels[start ? 0 : Math.min(1, labels.length - 1)];
	return [select(choice(labels), labels[start], update), select(choice(labels), other, update)];
}

fillIn("compared", (host) => {
	if (labels.length < 2) { host.append(note("There is one source: nothing to compare.")); return; }
	const pair = twoOf(host, chosen);
	const measure = select([["pass", "share correct"], ["nll", "surprisal per token (nats)"], ["tokens", "tokens per trace"]], "pass", update);
	const box = el("div", { class: "scatter" }), lines = el("ul"), table = el("div");
	host.append(filters(field("first source", pair[0]), field("second source", pair[1]), field("measure", measure)), lines, el("div", { class: "split" }, box, table));
	let rows = [], A, B; // of a problem: means x, y of n, m traces, and their difference
	const sentence = (r) => `${r.problem}: ${A} ${fixed(r.x)} (n = ${r.n}), ${B} ${fixed(r.y)} (n = ${r.m})`;
	const beside = (r) => `${address(r.first)}/${encodeURIComponent(B)}`;
	const plot = scatter(box, { label: "Problems: the first source across, the second up", say: (i) => sentence(rows[i]), open: (i) => go(beside(rows[i])) });
	const values = { pass: (i) => index.correct[i] === 2 ? NaN : index.correct[i], nll: (i) => index.nll[i], tokens: (i) => index.tokens[i] || NaN };
	const average = (v) => v.reduce((sum, x) => sum + x, 0) / v.length;
	function update() {
		[A, B] = pair.map((node) => node.value);
		const [a, b] = pair.map((node) => labels.indexOf(node.value)), name = measure.selectedOptions[0].text;
		rows = index.problems.map((problem, p) => {
			const [own, other] = [a, b].map((s) => idsOf(s, p).map(values[measure.value]).filter(finite)), [x, y] = [own, other].map(average);
			return { problem, first: idsOf(a, p)[0], x, n: own.length, y, m: other.length, d: y - x };
		}).filter((r) => r.n && r.m);
		const alone = [a, b].map((s) => index.problems.filter((_, p) => idsOf(s, p).length).length - rows.length);
		const up = rows.filter((r) => r.d > 0).length, down = rows.filter((r) => r.d < 0).length;
		const say = [`${count(rows.length)} problems in both${alone.some(Boolean) ? `; left out for want of the other: ${count(alone[0])} of ${A}, ${count(alone[1])} of ${B}` : ""}.`];
		if (rows.length) say.push(`Mean over problems: ${A} ${fixed(average(rows.map((r) => r.x)), 3)}, ${B} ${fixed(average(rows.map((r) => r.y)), 3)}; ${B} is higher on ${count(up)}, lower on ${count(down)}, equal on ${count(rows.length - up - down)}. A description; for intervals: analyzer compare RUN A B.`);
		lines.replaceChildren(...say.map((text) => el("li", {}, text)));
		const top = measure.value === "pass" ? 1 : Math.max(...rows.map((r) => Math.max(r.x, r.y)), 0);
		plot.show({ ids: [...rows.keys()], x: (i) => rows[i].x, y: (i) => rows[i].y, diagonal: true, limits: [-0.03 * top, 1.03 * top || 1],
			look: (i) => ({ color: index.sources[b].color, marker: rows[i].d > 0 ? "^" : rows[i].d < 0 ? "v" : "o", filled: rows[i].d > 0 }), xlabel: `${A}: ${name}`, ylabel: `${B}: ${name}` });
		const far = [...rows].sort((r, q) => Math.abs(q.d) - Math.abs(r.d)).slice(0, 100);
		table.replaceChildren(grid(["problem", A, "n", B, "n", "difference"],
			far.map((r) => [el("a", { href: beside(r) }, r.problem), fixed(r.x, 3), count(r.n), fixed(r.y, 3), count(r.m), fixed(r.d, 3)]), [0, 1, 1, 1, 1, 1], `${name} by problem`),
		note(`${count(far.length)} of ${count(rows.length)} problems, the largest differences first.`));
	}
	function chosen() {
		update();
		history.replaceState(null, "", `#/compare/${pair.map((s) => encodeURIComponent(s.value)).join("/")}`);
	}
	routes.compare = (a, b) => { if (labels.includes(a) && labels.includes(b)) { [pair[0].value, pair[1].value] = [a, b]; update(); } show("compare"); };
	update();
});
