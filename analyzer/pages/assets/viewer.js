// The traces that match the filters, one or two side by side, their tokens coloured.
const PARAGRAPH = 500; // tokens; the browser lays out only the paragraphs that are near
const ROW = 28; // pixels
const NATS = [[1, 2, 4, 7, 10], ["below 1", "1–2", "2–4", "4–7", "7–10", "10 nats and more"]];
const MODES = { // name, values of a trace's tokens, edges of the classes, their words
	surprisal: ["surprisal", (t) => t.surprisal, ...NATS],
	rank: ["rank class", (t) => t.rank, [2, 4, 11, 101], ["rank 1", "2–3", "4–10", "11–100", "beyond 100"]],
	nucleus: ["nucleus margin", (t) => t.mass, [0.5, 0.8, 0.9, 0.95, 0.99], ["likelier tokens hold below 0.5", "0.5–0.8", "0.8–0.9", "0.9–0.95", "0.95–0.99", "0.99 and more"]],
	excess: ["excess over the entropy", (t) => t.surprisal.map((s, i) => s - t.entropy[i]), ...NATS],
};
const HELP = { "j k": "next, previous trace of the list", "← →": "next, previous token", "↑ ↓ Home End": "by 10 tokens, first, last", "n p": "next, previous surprising token", c: "colour mode", s: "a second source side by side", "[ ]": "other sample on the right", "/": "search" };

fillIn("traces", (host) => {
	const state = { at: -1, beside: -1, token: 0, turn: 0, side: 0, hits: null };
	let list = [];
	const pick = (values, all = "all") => select([["", all], ...values], "", filter);
	// each by its array of the index
	const picks = { source: pick(labels.map((s, k) => [k, s])), correct: pick([[1, "correct"], [0, "wrong"], [2, "unknown"]]), flagged: pick([[1, "flagged as novel"], [0, "not flagged"], [2, "not tested"]]),
		problem: pick([...index.problems].sort().map((name) => [index.known.get(name), asked(name)[1]]), `all ${count(index.problems.length)}`), cluster: pick([]) };
	const { cluster, problem } = picks;
	const search = el("input", { type: "search", placeholder: "key; Enter: in the text", onkeydown: (e) => { if (e.key === "Enter") searchText(); if (e.key === "Escape") box.focus(); }, oninput() { state.hits = null; filter(); } });
	const words = () => search.value.trim().toLowerCase();
	const mode = select(Object.entries(MODES).map(([k, [name]]) => [k, name]), remembered("mode") || "surprisal", recolour);
	const limit = select([1, 2, 3, 5, 8].map((v) => [String(v), `${v} nats`]), "3");
	const beside = select([["", "no second source"], ...choice(labels)], "", () => openBeside());
	const found = note("", { role: "status" }), legend = el("p", { class: "legend" });
	const rows = el("div", { class: "rows" });
	const box = el("div", { class: "list", tabindex: 0, role: "listbox", "aria-label": "Traces", onscroll: () => paintList() }, rows);
	const panes = el("div", { class: "panes" }), said = el("output", { class: "said readout" });
	const help = el("dl", { class: "help", hidden: true }, ...Object.entries(HELP).flatMap(([k, text]) => [el("dt", {}, el("kbd", {}, k)), el("dd", {}, text)]));
	const keys = () => help.toggleAttribute("hidden");
	host.append(
		filters(...Object.entries(picks).map(([name, node]) => field(name, node)), field("search", search)),
		el("div", { class: "bench" }, el("div", { class: "side" }, found, box), el("div", { class: "stage" },
			filters(field("colour", mode), field("side by side", beside), field("surprising from", limit),
				button("‹ previous (p)", () => jump(-1)), button("next (n) ›", () => jump(1)), button("?", keys, { "aria-label": "Keys" })), help, legend, panes, said)));

	// Only the rows in sight are in the page.
	function filter() {
		if (document.activeElement !== cluster) fillClusters();
		const text = words(), want = Object.entries(picks).filter(([, node]) => node.value);
		list = [];
		for (let i = 0; i < index.n; i++) {
			if (want.every(([name, node]) => index[name][i] === +node.value) && (!text || (state.hits ? state.hits.has(i) : keyOf(i).toLowerCase().includes(text)))) list.push(i);
		}
		list.sort((a, b) => inPage(b) - inPage(a)); // those with tokens first
		// what a filter can't see is not counted as without a hit
		const seen = [[state.hits && text, inPage, "whose text is in the page"], [cluster.value, (i) => index.cluster[i] !== UNKNOWN, "whose cluster is in the page"]].filter(([on]) => on);
		let over = 0;
		for (let i = 0; i < index.n; i++) over += seen.every(([, knows]) => knows(i));
		const among = over < index.n ? `the ${count(over)} traces ${seen.map(([, , what]) => what).join(" and ")} (${count(index.n)} in all)` : `${count(index.n)} traces`;
		const open_ = list.filter(inPage).length;
		found.textContent = `${count(list.length)} of ${among}${open_ < list.length ? `, ${count(open_)} of them in the page` : ""}; ✓ correct, ⚑ flagged, nats per token`;
		rows.style.height = `${list.length * ROW}px`;
		box.scrollTop = 0;
		paintList();
	}
	function fillClusters() {
		const chosen = cluster.value, p = problem.value, seen = new Set(p ? labels.flatMap((_, s) => idsOf(s, +p)).map((i) => index.cluster[i]) : []);
		seen.delete(UNKNOWN);
		cluster.replaceChildren(...options([["", p ? "all" : "choose a problem"], ...choice([...seen].sort((a, b) => a - b))]));
		cluster.value = seen.has(+chosen) ? chosen : "";
		cluster.disabled = !seen.size;
	}
	function paintList() {
		const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 5), last = Math.min(list.length, first + Math.ceil((box.clientHeight || 500) / ROW) + 10);
		rows.replaceChildren(...list.slice(first, last).map((i, k) => {
			const row = el("div", { class: inPage(i) ? "row" : "row bare", role: "option", id: `row-${i}`, "aria-selected": String(i === state.at), style: `top: ${(first + k) * ROW}px`, onclick: () => open(i) },
				badge(sourceOf(i)), el("span", { class: "key" }, keyOf(i)),
				el("span", { class: "facts" }, `${["✗", "✓", ""][index.correct[i]]} ${index.flagged[i] === 1 ? "⚑ " : ""}${finite(index.nll[i]) ? fixed(index.nll[i]) : "–"}`));
			return row;
		}));
		if (state.at >= 0) box.setAttribute("aria-activedescendant", `row-${state.at}`);
	}
	function step(by) {
		if (!list.length) return;
		const k = clamp(list.indexOf(state.at) + by, 0, list.length - 1);
		if (k * ROW < box.scrollTop || (k + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (k - 3) * ROW;
		open(list[k]);
	}
	async function searchText() {
		const text = words(), hits = new Set();
		if (!text) return;
		const packs = [...new Set(index.pack)].filter((p) => p !== NONE);
		for (const [k, p] of packs.entries()) {
			found.textContent = `Searching the text: ${k} of ${packs.length}`;
			for (const [i, [trace]] of (await packOf(p)).at) if (trace.text.toLowerCase().includes(text)) hits.add(i);
			if (words() !== text) return;
		}
		state.hits = hits;
		filter();
		repaint();
	}

	async function open(i, quiet) {
		const mine = ++state.turn;
		if (state.at !== i) state.token = 0;
		state.at = i;
		if (!quiet) try { history.replaceState(null, "", address(i) + (beside.value ? `/${encodeURIComponent(beside.value)}` : "")); } catch { /* not allowed here */ }
		paintList();
		let trace = null;
		try { trace = await traceOf(i); } catch (error) { panes.replaceChildren(alarm(error.message)); return; }
		if (mine !== state.turn) return;
		state.beside = partner(0);
		const second = state.beside >= 0 ? await traceOf(state.beside) : null;
		if (mine !== state.turn) return;
		state.traces = [trace, second];
		repaint();
	}
	function partner(step) { // of the second source on the same problem: the one that is shown, if it is
		if (!beside.value || state.at < 0) return -1;
		const able = idsOf(labels.indexOf(beside.value), index.problem[state.at]).filter((j) => inPage(j) && j !== state.at);
		if (!able.length) return -1;
		const k = able.indexOf(state.beside);
		return able[((k < 0 ? 0 : k + step) + able.length) % able.length];
	}
	function openBeside(by = 0) {
		state.beside = partner(by);
		if (state.at >= 0) open(state.at);
	}
	function repaint() {
		if (!state.traces) return;
		const [a, b] = state.traces, focused = panes.contains(document.activeElement);
		let shared = 0;
		if (a && b) while (shared < Math.min(a.n, b.n) && a.pieces[shared] === b.pieces[shared]) shared++;
		panes.classList.toggle("two", Boolean(beside.value));
		panes.replaceChildren(pane(state.at, a, 0, b ? shared : -1), ...(beside.value ? [state.beside >= 0 ? pane(state.beside, b, 1, shared) : note(`No trace of ${beside.value} on this problem is in the page.`)] : []));
		paintLegend();
		touch(0, state.token);
		if (focused) $(".tokens", panes).focus({ preventScroll: true });
	}
	function pane(i, trace, side, shared) {
		const facts = [rightness[index.correct[i]], `${count(index.tokens[i])} tokens`, finite(index.nll[i]) ? `${fixed(index.nll[i] * index.tokens[i], 1)} nats, ${fixed(index.nll[i], 3)} per token` : "not scored",
			finite(index.z[i]) ? `excess z ${fixed(index.z[i])}` : "", index.flagged[i] === 1 ? "⚑ flagged as novel" : "", index.cluster[i] !== UNKNOWN ? `cluster ${index.cluster[i]}` : "", trace?.answer ? `answer ${trace.answer}` : "", trace?.finish ? `finish ${trace.finish}` : "", side && shared >= 0 ? `the first ${count(shared)} tokens are the same` : ""].filter(Boolean);
		const head = el("div", { class: "panehead" }, el("h4", {}, badge(sourceOf(i)), ` ${keyOf(i)}`), side
			? el("span", {}, button("‹ [", () => openBeside(-1), { "aria-label": "Previous sample on the right" }), " ", button("] ›", () => openBeside(1), { "aria-label": "Next sample on the right" }))
			: button("Copy link", (e) => copy(location.href.split("#")[0] + address(i), e.target)));
		const at = (e) => { if (e.target.token !== undefined) touch(side, e.target.token); };
		const body = el("div", { class: trace?.n > 2000 ? "tokens long" : "tokens", tabindex: 0, role: "group", "aria-label": `Tokens of ${keyOf(i)}`, onpointerover: at, onclick: at, onfocus: () => { if (state.side !== side) touch(side, 0); } });
		if (trace) fill(body, trace, shared);
		else body.append(note("Not in the page; see: analyzer show RUN KEY."));
		const prompt = trace?.prompt && !side ? el("details", {}, el("summary", {}, "Prompt"), el("p", { class: "prompt" }, trace.prompt)) : null;
		return el("article", { class: "pane", "data-side": side }, head, note(facts.join(" · ")), prompt, body);
	}
	// A few paragraphs at a time, so that the first tokens of a long trace stand at once.
	function fill(body, trace, shared) {
		const mine = state.turn, marks = matches(trace);
		body.spans = [];
		let t = 0;
		const more = () => {
			if (mine !== state.turn) return;
			for (let part = 0; part < 4 && t < trace.n; part++) {
				const paragraph = el("div", { class: "para" });
				const end = Math.min(trace.n, t + PARAGRAPH);
				for (; t < trace.n && (t < end || t < end + 300 && !trace.pieces[t - 1].includes("\n")); t++) {
					const text = trace.pieces[t];
					const span = el("span", {}, text || (t === trace.n - 1 ? "␣end" : "·"));
					span.token = t;
					for (const [name, is] of [["none", !text], ["hit", marks.has(t)], ["fork", t === shared]]) span.classList.toggle(name, is);
					body.spans.push(span);
					paragraph.append(span);
				}
				body.append(paragraph);
			}
			colour(body, trace, body.done || 0);
			body.done = t;
			if (t < trace.n) setTimeout(more);
		};
		if (trace.n) more();
		else body.append(el("div", { class: "para" }, trace.text));
	}
	function matches(trace) {
		const out = new Set(), sought = words();
		if (!state.hits || !sought) return out;
		const text = trace.text.toLowerCase(), ends = [];
		let at = 0;
		for (const piece of trace.pieces) ends.push(at += piece.length);
		for (let from = text.indexOf(sought), t = 0; from >= 0; from = text.indexOf(sought, from + 1)) {
			while (ends[t] <= from) t++;
			for (let k = t; k < ends.length && (k === 0 || ends[k - 1] < from + sought.length); k++) out.add(k);
		}
		return out;
	}
	function colour(body, trace, from) {
		const [, of, edges] = MODES[mode.value], values = of(trace);
		for (let t = from; t < body.spans.length; t++) {
			let k = 0;
			while (k < edges.length && values[t] >= edges[k]) k++;
			const classes = body.spans[t].classList;
			for (let h = 1; h < 6; h++) classes.toggle(`h${h}`, h === k);
		}
	}
	function recolour() {
		remembered("mode", mode.value);
		for (const pane of $$(".pane", panes)) { const trace = state.traces[+pane.dataset.side]; if (trace?.n) colour($(".tokens", pane), trace, 0); }
		paintLegend();
	}
	function paintLegend() {
		const [name, , , classes] = MODES[mode.value];
		legend.replaceChildren(`Background, ${name}: `, ...classes.map((text, k) => el("span", { class: `chip-h h${k}` }, text)));
	}
	function touch(side, t, scroll) {
		const pane = $(`.pane[data-side="${side}"]`, panes), trace = state.traces?.[side];
		if (!pane || !trace?.n) { said.textContent = ""; return; }
		for (const other of $$(".on", panes)) other.classList.remove("on");
		state.side = side;
		state.token = clamp(t, 0, trace.n - 1);
		t = state.token;
		const span = $(".tokens", pane).spans[t];
		if (span) { span.classList.add("on"); if (scroll) span.scrollIntoView({ block: "nearest" }); }
		const others = trace.top.get(t);
		said.replaceChildren(
			el("span", {}, `Token ${count(t + 1)} of ${count(trace.n)} `, el("code", {}, JSON.stringify(trace.pieces[t])), `: ${fixed(trace.surprisal[t])} nats, rank ${count(trace.rank[t])}, likelier tokens hold ${fixed(trace.mass[t], 3)}, entropy ${fixed(trace.entropy[t])}, excess ${fixed(trace.surprisal[t] - trace.entropy[t])} nats.`),
			others ? el("ol", { class: "others", "aria-label": "Likelier tokens" }, ...others.map(([name, log]) => { const p = Math.exp(log ?? -Infinity); return el("li", {}, el("i", { style: `width: ${p * 6}rem` }), `${fixed(p, 3)} `, el("code", {}, JSON.stringify(name))); })) : el("span", { class: "note" }, " Likelier tokens are stored only where the surprisal is high."));
	}
	function jump(way) {
		const side = state.side, trace = state.traces?.[side];
		if (!trace) return;
		for (let t = state.token + way; t >= 0 && t < trace.n; t += way) if (trace.surprisal[t] >= +limit.value) { reach(side, t); return; }
		said.textContent = `No token of ${limit.value} nats or more that way.`;
	}
	function reach(side, t) { // its paragraph may still be in the making
		const body = $(`.pane[data-side="${side}"] .tokens`, panes);
		if (body.spans[t]) { touch(side, t, true); body.focus({ preventScroll: true }); } else setTimeout(() => reach(side, t), 20);
	}

	on(host, "keydown", (e) => {
		if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
		const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -1e9, End: 1e9 };
		const act = { j: () => step(1), k: () => step(-1), n: () => jump(1), p: () => jump(-1), "/": () => search.focus(), "[": () => openBeside(-1), "]": () => openBeside(1), "?": keys,
			c: () => { mode.selectedIndex = (mode.selectedIndex + 1) % mode.length; recolour(); },
			s: () => { beside.value = beside.value ? "" : [index.reference, ...labels].find((l) => l !== labelOf(state.at)) || ""; openBeside(); } };
		const move = e.target.classList.contains("tokens") ? moves[e.key] && (() => touch(state.side, state.token + moves[e.key], true)) : e.target === box && { ArrowDown: act.j, ArrowUp: act.k }[e.key];
		const chosen = move || act[e.key];
		if (chosen) { e.preventDefault(); chosen(); }
	});
	routes.trace = async (label, name, sample, other) => {
		const i = find(label, name, sample);
		show("viewer");
		if (i < 0) { panes.replaceChildren(alarm(`This report has no trace ${[label, name, sample].join("/")}.`)); state.traces = null; return; }
		if (labels.includes(other)) beside.value = other;
		if (!list.includes(i)) { for (const node of [...Object.values(picks), search]) node.value = ""; filter(); }
		await openFirst(i);
		$(".tokens", panes)?.focus();
	};
	function openFirst(i) { // with its row in sight, and the address as it is
		box.scrollTop = (list.indexOf(i) - 3) * ROW;
		return open(i, true);
	}
	filter();
	paintLegend();
	if (list.length && !location.hash.startsWith("#/trace")) {
		// when the reader comes near: it decodes a pack
		new IntersectionObserver((seen, observer) => { if (seen.some((s) => s.isIntersecting)) { observer.disconnect(); if (state.at < 0) openFirst(list.find((i) => index.flagged[i] === 1) ?? list[0]); } }, { rootMargin: "600px" }).observe(host);
	}
});

ready.then(follow, (error) => { for (const id of ["map", "compared", "prefixes", "traces"]) byId(id)?.append(alarm(error.message)); });
