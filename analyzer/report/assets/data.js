// Packs of data (see report/embed.py): base64 of gzip, in the page or in a file beside it; the index of traces; addresses.
const KINDS = { u1: [Uint8Array, 1], u2: [Uint16Array, 2], u4: [Uint32Array, 4], f4: [Float32Array, 4] };
const NONE = 0xFFFFFFFF, UNKNOWN = 65534, ENDLESS = 65535;
const waiting = {};
globalThis.analyzerPack = (id, text) => { waiting[id]?.(text); };

// The text of a pack: from the page, else from data/<id>.js, which calls analyzerPack.
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
  if (typeof DecompressionStream === "undefined") throw new Error("This browser is too old to show traces (no DecompressionStream).");
  const text = await packed(id);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(data.buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(data.subarray(4, 4 + length)));
  let at = 4 + length;
  for (const [name, [kind, n]] of Object.entries(head.arrays || {})) {
    const [Type, width] = KINDS[kind];
    const whole = new Uint8Array(n * width);
    for (let plane = 0; plane < width; plane++) {
      for (let i = 0, from = at + plane * n; i < n; i++) whole[i * width + plane] = data[from + i];
    }
    head[name] = new Type(whole.buffer);
    at += n * width;
  }
  return head;
}

// The index: arrays over all traces in the order source, problem, sample; null where the page has none.
let index = null;
const ready = byId("pack-index") ? unpack("index").then((found) => {
  index = found;
  index.n = index.source.length;
  index.known = new Map(index.problems.map((p, i) => [p, i]));
  index.byPair = new Map(); // "source problem" -> [first, last + 1]: a pair's traces stand together
  for (let i = 0, from = 0; i < index.n; i++) {
    if (i + 1 === index.n || index.source[i + 1] !== index.source[i] || index.problem[i + 1] !== index.problem[i]) {
      index.byPair.set(index.source[i] * index.problems.length + index.problem[i], [from, i + 1]);
      from = i + 1;
    }
  }
  return index;
}) : Promise.resolve(null);

const labelOf = (i) => index.sources[index.source[i]].label;
const problemOf = (i) => index.problems[index.problem[i]];
const sampleOf = (i) => index.sample[i] + (index.step[i] === NONE ? "" : `@${index.step[i]}`);
const keyOf = (i) => `${labelOf(i)}/${problemOf(i)}/${sampleOf(i)}`;
const address = (i) => `#/trace/${[labelOf(i), problemOf(i), sampleOf(i)].map(encodeURIComponent).join("/")}`;
const range = (source, problem) => index.byPair.get(source * index.problems.length + problem) || [0, 0];
const rightness = ["wrong", "correct", "correctness unknown"];

function find(label, problem, sample) {
  const source = index.sources.findIndex((s) => s.label === label);
  const [from, to] = source < 0 || !index.known.has(problem) ? [0, 0] : range(source, index.known.get(problem));
  for (let i = from; i < to; i++) if (sampleOf(i) === sample) return i;
  return -1;
}

// One trace with its tokens; the packs that were opened last are kept.
const opened = new Map();
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
  if (index.pack[i] === NONE) return null;
  const pack = await packOf(index.pack[i]);
  const [trace, from] = pack.at.get(i);
  const part = (name) => pack[name].subarray(from, from + trace.n);
  const pieces = [];
  let at = 0;
  for (const length of part("length")) { pieces.push(trace.text.slice(at, at + length)); at += length; }
  const surprisal = Float32Array.from(part("surprisal"), nats), entropy = Float32Array.from(part("entropy"), nats);
  const mass = Float32Array.from(part("mass"), (code) => code === UNKNOWN ? NaN : code / 65000);
  return { i, text: trace.text, n: trace.n, pieces, surprisal, entropy, mass, rank: part("rank"), answer: trace.answer, finish: trace.finish,
    prompt: pack.prompts[index.problem[i]] || "", top: new Map(trace.top.map(([p, names, logs]) => [p, names.map((name, j) => [name, logs[j]])])) };
}

// Addresses: #/trace/source/problem/sample, #/tree/problem/a/b, #/compare/a/b.
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
const show = (id) => byId(id).scrollIntoView({ block: "start", behavior: "instant" });
