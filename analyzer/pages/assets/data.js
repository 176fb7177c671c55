// Packs of data (see embed.py), the index of traces, addresses.
const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
const NONE = 0xFFFFFFFF, UNKNOWN = 65534, ENDLESS = 65535;
const waiting = {};
globalThis.analyzerPack = (id, text) => { waiting[id]?.(text); };

// From the page, else from data/<id>.js, which calls analyzerPack.
function packed(id) {
	const here = byId(`pack-${id}`);
	if (here) return Promise.resolve(here.textContent);
	return new Promise((resolve, reject) => {
		waiting[id] = resolve;
		const script = el("script", { src: `data/${id}.js`, onerror() { reject(new Error(`data/${id}.js can't be read: keep the folder data beside this page`)); }, onload() { script.remove(); } });
		document.head.append(script);
	});
}

async function unpack(id) {
	if (typeof DecompressionStream === "undefined") throw new Error("This browser is too old to show traces.");
	const binary = atob(await packed(id)), bytes = new Uint8Array(binary.length);
	for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
	const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
	const data = new Uint8Array(await new Response(stream).arrayBuffer());
	const length = new DataView(data.buffer).getUint32(0, true);
	const head = JSON.parse(new TextDecoder().decode(data.subarray(4, 4 + length)));
	let at = 4 + length;
	for (const [name, [kind, n]] of Object.entries(head.arrays || {})) {
		const Type = KINDS[kind], width = Type.BYTES_PER_ELEMENT, whole = new Uint8Array(n * width);
		for (let plane = 0; plane < width; plane++) {
			for (let i = 0, from = at + plane * n; i < n; i++) whole[i * width + plane] = data[from + i];
		}
		head[name] = new Type(whole.buffer);
		at += n * width;
	}
	return head;
}

// Arrays over all traces in the order source, problem, sample; null where the page has none.
let index = null, labels = [];
const ready = byId("pack-index") ? unpack("index").then((found) => {
	index = found;
	index.n = index.source.length;
	labels = index.sources.map((s) => s.label);
	index.known = new Map(index.problems.map((p, i) => [p, i]));
	index.byPair = new Map(); // source and problem -> traces
	for (let i = 0; i < index.n; i++) {
		const pair = pairOf(index.source[i], index.problem[i]);
		if (index.byPair.has(pair)) index.byPair.get(pair).push(i);
		else index.byPair.set(pair, [i]);
	}
}) : Promise.resolve();
const fillIn = (id, make) => ready.then(() => { const host = byId(id); if (index && host) make(host); });

const sourceOf = (i) => index.sources[index.source[i]];
const right = (i) => index.correct[i] === 1;
const labelOf = (i) => labels[index.source[i]];
const problemOf = (i) => index.problems[index.problem[i]];
const sampleOf = (i) => index.sample[i] + (index.step[i] === NONE ? "" : `@${index.step[i]}`);
const keyOf = (i) => `${labelOf(i)}/${problemOf(i)}/${sampleOf(i)}`;
const address = (i) => `#/trace/${[labelOf(i), problemOf(i), sampleOf(i)].map(encodeURIComponent).join("/")}`;
const pairOf = (source, problem) => source * index.problems.length + problem;
const idsOf = (source, problem) => index.byPair.get(pairOf(source, problem)) || [];
const inPage = (i) => index.pack[i] !== NONE;
const asked = (problem) => { const text = index.asked[index.known.get(problem)]; return [problem, text ? `${problem} · ${text}` : problem]; };
const rightness = ["wrong", "correct", "correctness unknown"];

const find = (label, problem, sample) => idsOf(labels.indexOf(label), index.known.get(problem)).find((i) => sampleOf(i) === sample) ?? -1;

function keyed(key) {
	for (const label of labels.filter((l) => key.startsWith(`${l}/`))) {
		const rest = key.slice(label.length + 1), cut = rest.lastIndexOf("/"), i = find(label, rest.slice(0, cut), rest.slice(cut + 1));
		if (i >= 0) return i;
	}
	return -1;
}
// In a table the keys of traces lead to the viewer.
function linkKeys(table) {
	for (const head of table.tHead.rows[0].cells) {
		if (index && /^(key|exemplar)$/.test(head.textContent)) for (const row of table.tBodies[0].rows) {
			const cell = row.cells[head.cellIndex], i = keyed(cell.textContent);
			if (i >= 0) cell.replaceChildren(el("a", { href: address(i) }, cell.textContent));
		}
	}
}
ready.then(() => $$("main table").forEach(linkKeys));

const opened = new Map(); // the packs that were opened last
async function packOf(number) {
	if (!opened.has(number)) {
		opened.set(number, unpack(`t${number}`).then((pack) => {
			const at = new Map();
			let from = 0;
			for (const trace of pack.traces) { at.set(trace.i, [trace, from]); from += trace.n; }
			return Object.assign(pack, { at });
		}));
		opened.get(number).catch(() => opened.delete(number));
		if (opened.size > 24) opened.delete(opened.keys().next().value);
	}
	return opened.get(number);
}
const nats = (code) => code === UNKNOWN ? NaN : code === ENDLESS ? Infinity : code / 100;
async function traceOf(i) {
	if (!inPage(i)) return null;
	const pack = await packOf(index.pack[i]), [trace, from] = pack.at.get(i), part = (name) => pack[name].subarray(from, from + trace.n);
	const pieces = [];
	let at = 0;
	for (const length of part("length")) { pieces.push(trace.text.slice(at, at + length)); at += length; }
	const surprisal = Float32Array.from(part("surprisal"), nats), entropy = Float32Array.from(part("entropy"), nats);
	const mass = Float32Array.from(part("mass"), (code) => code === UNKNOWN ? NaN : code / 65000);
	return { ...trace, pieces, surprisal, entropy, mass, rank: part("rank"), prompt: pack.prompts[index.problem[i]] || "", top: new Map(trace.top.map(([p, names, logs]) => [p, names.map((name, j) => [name, logs[j]])])) };
}

// #/trace/source/problem/sample, #/tree/problem/a/b, #/compare/a/b
const routes = {};
async function follow() {
	const parts = location.hash.slice(2).split("/");
	if (!location.hash.startsWith("#/") || !routes[parts[0]]) return;
	let words;
	try { words = parts.slice(1).map(decodeURIComponent); } catch { return; }
	await ready;
	if (index) routes[parts[0]](...words);
}
addEventListener("hashchange", follow);
const go = (hash) => { if (location.hash === hash) follow(); else location.hash = hash; };
const show = (id) => {
	for (const fold of $$("details.fold", byId(id))) fold.open = true;
	byId(id).scrollIntoView({ block: "start" });
};
