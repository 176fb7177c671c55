// Points that are read out, of scatter plots and of figures: one tab stop, pointer, arrows, Enter.
// marker -> [corners, turn in degrees, size, inner radius]; without inner radius a polygon, with 0 a cross.
const MARKERS = { o: [20, 0, 1], s: [4, 45, 1.4], "^": [3, -90, 1.25], v: [3, 90, 1.25], D: [4, 0, 1.25], p: [5, -90, 1.15], P: [8, 0, 1, 0], X: [8, 45, 1, 0], "*": [10, -90, 1.4, 0.5] };
function mark(c, marker, x, y, r) {
	const [n, turn, size, inner = 1] = MARKERS[marker];
	c.beginPath();
	for (let i = 0; i < n; i++) {
		const angle = (turn + i * 360 / n) * Math.PI / 180, q = r * size * (i % 2 ? inner : 1);
		c.lineTo(x + q * Math.cos(angle), y + q * Math.sin(angle));
	}
	c.closePath();
}

function ticks(low, high) {
	const step = 10 ** Math.floor(Math.log10((high - low) / 3 || 1));
	const wide = [1, 2, 5, 10].map((m) => m * step).find((s) => (high - low) / s <= 6) || step;
	const out = [];
	for (let t = Math.ceil(low / wide) * wide; t <= high + 1e-9; t += wide) out.push(Math.abs(t) < 1e-12 ? 0 : t);
	return out;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
// The place nearest to (x, y), or -1; from `at` the nearest that lies more that way than aside.
function nearest(places, x, y) {
	let best = -1, least = 625;
	places.forEach(([a, b], i) => { const d = (a - x) ** 2 + (b - y) ** 2; if (d < least) { least = d; best = i; } });
	return best;
}
function towards(places, at, [right, down]) {
	if (at < 0) return 0;
	const [x, y] = places[at];
	let best = at, least = Infinity;
	places.forEach(([a, b], i) => {
		const along = (a - x) * right + (b - y) * down, aside = Math.abs((a - x) * down) + Math.abs((b - y) * right);
		if (along > 0.5 && along >= aside && along + aside < least) { least = along + aside; best = i; }
	});
	return best;
}
// places() -> [[x, y], ...], where(event) -> [x, y], tell(i) -> text; returns what forgets the point.
function readable(node, hint, { places, where, tell, open }) {
	let at = -1;
	const said = el("output", { class: "said" }, hint);
	node.after(said);
	node.tabIndex = 0;
	node.setAttribute("role", "application");
	const pick = (i) => { if (i >= 0 && i !== at) { at = i; said.textContent = tell(i); } return i; };
	const under = (e) => pick(nearest(places(), ...where(e)));
	on(node, "pointermove", under);
	on(node, "click", (e) => { if (open && under(e) >= 0) open(at); });
	on(node, "keydown", (e) => {
		if (e.key === "Enter" && open && at >= 0) open(at);
		if (!ARROWS[e.key] || !places().length) return;
		e.preventDefault();
		pick(towards(places(), at, ARROWS[e.key]));
	});
	return () => { at = -1; said.textContent = hint; };
}

// The curves of a figure: each mark has its numbers in data-say.
for (const svg of $$("figure svg")) {
	const marks = $$("[data-say]", svg), places = marks.map((m) => [+m.getAttribute("x"), +m.getAttribute("y")]);
	const ring = el("circle", { r: 4, class: "ring" });
	if (marks.length) readable(svg, "Point, or use the arrow keys, for the numbers.", {
		places: () => places,
		where: (e) => { const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse()); return [p.x, p.y]; },
		tell(i) {
			[ring.cx.baseVal.value, ring.cy.baseVal.value] = places[i];
			svg.append(ring);
			return marks[i].dataset.say;
		},
	});
}

// `plot.show({ids, x, y, look, xlabel, ylabel, diagonal})`: look(id) -> {color, marker, filled, alpha, ring}.
function scatter(host, { label, say, open }) {
	const canvas = el("canvas", { "aria-label": label }), ring = el("i", { hidden: true });
	host.replaceChildren(canvas, ring);
	let data = null, places = [];
	const draw = () => {
		if (!data || !canvas.clientWidth) return;
		const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
		canvas.width = width * ratio;
		canvas.height = height * ratio;
		const c = canvas.getContext("2d");
		c.scale(ratio, ratio);
		ring.hidden = true;
		forget();
		const [left, bottom] = [46, 34];
		const limits = (values) => {
			let low = Infinity, high = -Infinity;
			for (const id of data.ids) { const v = values(id); if (v < low) low = v; if (v > high) high = v; }
			const gap = (high - low || 1) * 0.04;
			return [low - gap, high + gap];
		};
		const [x0, x1] = data.limits || limits(data.x), [y0, y1] = data.limits || limits(data.y);
		const px = (x) => left + (x - x0) / (x1 - x0) * (width - left - 8), py = (y) => height - bottom - (y - y0) / (y1 - y0) * (height - bottom - 8);
		const [muted, rule] = [ink("muted"), ink("rule")];
		c.font = "12px system-ui, sans-serif";
		c.strokeStyle = rule;
		c.fillStyle = muted;
		c.beginPath();
		for (const t of ticks(x0, x1)) { c.moveTo(px(t), 8); c.lineTo(px(t), height - bottom); c.textAlign = "center"; c.fillText(+t.toPrecision(4), px(t), height - bottom + 14); }
		for (const t of ticks(y0, y1)) { c.moveTo(left, py(t)); c.lineTo(width - 8, py(t)); c.textAlign = "right"; c.fillText(+t.toPrecision(4), left - 5, py(t) + 4); }
		c.stroke();
		c.textAlign = "center";
		c.fillText(data.xlabel, (left + width) / 2, height - 4);
		c.save();
		c.translate(11, (height - bottom) / 2);
		c.rotate(-Math.PI / 2);
		c.fillText(data.ylabel, 0, 0);
		c.restore();
		if (data.diagonal) { c.strokeStyle = muted; c.setLineDash([3, 3]); c.beginPath(); c.moveTo(px(x0), py(x0)); c.lineTo(px(x1), py(x1)); c.stroke(); c.setLineDash([]); }
		const size = data.ids.length > 8000 ? 2 : data.ids.length > 1500 ? 3 : 4.5;
		places = data.ids.map((id) => [px(data.x(id)), py(data.y(id))]);
		data.ids.forEach((id, i) => {
			const { color, marker = "o", filled = true, alpha = 0.75, ring } = data.look(id), [x, y] = places[i];
			c.globalAlpha = alpha;
			c.strokeStyle = c.fillStyle = color;
			c.lineWidth = 1;
			mark(c, marker, x, y, size);
			if (filled) c.fill();
			c.stroke();
			if (ring) { c.globalAlpha = 1; c.strokeStyle = muted; c.beginPath(); c.arc(x, y, size + 4, 0, 7); c.stroke(); }
		});
	};
	const forget = readable(canvas, "Point, or use the arrow keys; Enter opens the trace.", {
		places: () => places,
		where: (e) => [e.offsetX, e.offsetY],
		tell(i) {
			[ring.style.left, ring.style.top] = places[i].map((v) => `${v}px`);
			ring.hidden = false;
			return say(data.ids[i]);
		},
		open: (i) => open(data.ids[i]),
	});
	new ResizeObserver(draw).observe(canvas);
	onTheme.push(draw);
	return { show(next) { data = next; draw(); } };
}
