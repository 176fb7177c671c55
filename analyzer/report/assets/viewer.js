// The trace viewer: a list of traces that match the filters, one trace or two side by side, tokens coloured by what the
// base model thought of them. Keys work while the focus is inside the viewer.
const PARAGRAPH = 500; // tokens; the browser lays out only the paragraphs that are near
const ROW = 28; // pixels of a row of the list
const NATS = ["below 1", "1–2", "2–4", "4–7", "7–10", "10 nats and more"];
const MODES = {
  surprisal: { name: "surprisal", of: (t) => t.surprisal, edges: [1, 2, 4, 7, 10], words: NATS },
  rank: { name: "rank class", of: (t) => t.rank, edges: [2, 4, 11, 101], words: ["rank 1", "2–3", "4–10", "11–100", "beyond 100"] },
  nucleus: { name: "nucleus margin", of: (t) => t.mass, edges: [0.5, 0.8, 0.9, 0.95, 0.99], words: ["likelier tokens hold below 0.5", "0.5–0.8", "0.8–0.9", "0.9–0.95", "0.95–0.99", "0.99 and more"] },
  excess: { name: "excess over the entropy", of: (t) => t.surprisal.map((s, i) => s - t.entropy[i]), edges: [1, 2, 4, 7, 10], words: NATS },
};
const HELP = [["j / k", "next, previous trace of the list"], ["← →", "previous, next token"], ["↑ ↓ Home End", "by 10 tokens, first, last"], ["n / p", "next, previous surprising token"], ["c", "colour mode"], ["s", "a second source side by side"], ["[ / ]", "other sample on the right"], ["/", "search"]];

ready.then((found) => {
  const host = $("#traces");
  if (!found || !host) return;
  const labels = index.sources.map((s) => s.label);
  const state = { mode: MODES[remembered.get("mode")] ? remembered.get("mode") : "surprisal", at: -1, beside: -1, token: 0, turn: 0, hits: null };
  let list = [];
  const pick = (values, all = "all") => el("select", { onchange: filter }, ...options([["", all], ...values]));
  const source = pick(choice(labels)), correct = pick([["1", "correct"], ["0", "wrong"], ["2", "unknown"]]);
  const flagged = pick([["1", "flagged as novel"], ["0", "not flagged"], ["2", "not in a table"]]);
  const problem = pick(choice([...index.problems].sort()), `all ${count(index.problems.length)}`);
  const cluster = pick([]);
  const search = el("input", { type: "search", placeholder: "key; Enter: in the text", "aria-label": "search", onkeydown: (e) => { if (e.key === "Enter") searchText(); if (e.key === "Escape") box.focus(); }, oninput() { state.hits = null; filter(); } });
  const mode = el("select", { onchange: recolour }, ...options(Object.entries(MODES).map(([k, m]) => [k, m.name]), state.mode));
  const limit = el("select", {}, ...options([1, 2, 3, 5, 8].map((v) => [String(v), `${v} nats`]), "3"));
  const beside = el("select", { onchange: () => openBeside() }, ...options([["", "no second source"], ...choice(labels)]));
  const found_ = el("p", { class: "note", role: "status" }), legend = el("p", { class: "legend" });
  const rows = el("div", { class: "rows" });
  const box = el("div", { class: "list", tabindex: 0, role: "listbox", "aria-label": "Traces", onscroll: () => paintList() }, rows);
  const panes = el("div", { class: "panes" }), said = el("output", { class: "said readout" });
  const help = el("dl", { class: "help", hidden: true }, ...HELP.flatMap(([k, text]) => [el("dt", {}, el("kbd", {}, k)), el("dd", {}, text)]));
  host.append(
    el("div", { class: "filters" }, field("source", source), field("correct", correct), field("flagged", flagged), field("problem", problem), field("cluster", cluster), field("search", search)),
    el("div", { class: "bench" }, el("div", { class: "side" }, found_, box), el("div", { class: "stage" },
      el("div", { class: "filters" }, field("colour", mode), field("side by side", beside), field("surprising from", limit),
        el("button", { type: "button", onclick: () => jump(-1) }, "‹ previous (p)"), el("button", { type: "button", onclick: () => jump(1) }, "next (n) ›"),
        el("button", { type: "button", "aria-label": "Keys", onclick: () => { help.hidden = !help.hidden; } }, "?")), help, legend, panes, said)));

  // The list: only the rows in sight are in the page.
  function filter() {
    const words = search.value.trim().toLowerCase();
    const want = [source.value && labels.indexOf(source.value), problem.value && index.known.get(problem.value)];
    if (document.activeElement !== cluster) fillClusters();
    list = [];
    for (let i = 0; i < index.n; i++) {
      if (want[0] !== "" && index.source[i] !== want[0] || want[1] !== "" && index.problem[i] !== want[1]) continue;
      if (correct.value && index.correct[i] !== +correct.value || flagged.value && index.flagged[i] !== +flagged.value) continue;
      if (cluster.value && index.cluster[i] !== +cluster.value) continue;
      if (words && !(state.hits ? state.hits.has(i) : keyOf(i).toLowerCase().includes(words))) continue;
      list.push(i);
    }
    const bare = (i) => index.pack[i] === NONE;
    list.sort((a, b) => bare(a) - bare(b)); // those with tokens first
    found_.textContent = `${count(list.length)} of ${count(index.n)} traces; ✓ correct, ⚑ flagged, nats per token`;
    rows.style.height = `${list.length * ROW}px`;
    box.scrollTop = 0;
    paintList();
  }
  function fillClusters() {
    const chosen = cluster.value, p = problem.value ? index.known.get(problem.value) : -1, seen = new Set();
    if (p >= 0) labels.forEach((_, s) => { const [from, to] = range(s, p); for (let i = from; i < to; i++) if (index.cluster[i] !== UNKNOWN) seen.add(index.cluster[i]); });
    cluster.replaceChildren(...options([["", p < 0 ? "choose a problem" : "all"], ...[...seen].sort((a, b) => a - b).map((c) => [String(c), String(c)])], seen.has(+chosen) ? chosen : ""));
    cluster.disabled = !seen.size;
  }
  function paintList() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 5), last = Math.min(list.length, first + Math.ceil((box.clientHeight || 500) / ROW) + 10);
    rows.replaceChildren(...list.slice(first, last).map((i, k) => {
      const row = el("div", { class: "row", role: "option", id: `row-${i}`, "aria-selected": String(i === state.at), onclick: () => open(i) },
        badge(index.sources[index.source[i]]), el("span", { class: "key" }, keyOf(i)),
        el("span", { class: "facts" }, `${["✗", "✓", ""][index.correct[i]]} ${index.flagged[i] === 1 ? "⚑ " : ""}${finite(index.nll[i]) ? fixed(index.nll[i]) : "–"}`));
      row.style.top = `${(first + k) * ROW}px`;
      if (index.pack[i] === NONE) row.classList.add("bare");
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
    const words = search.value.trim().toLowerCase(), hits = new Set();
    if (!words) return;
    const packs = [...new Set(index.pack)].filter((p) => p !== NONE);
    for (const [k, p] of packs.entries()) {
      found_.textContent = `Searching the text: ${k} of ${packs.length}`;
      for (const [i, [trace]] of (await packOf(p)).at) if (trace.text.toLowerCase().includes(words)) hits.add(i);
      if (search.value.trim().toLowerCase() !== words) return;
    }
    state.hits = hits;
    filter();
    repaint();
  }

  // A trace and its tokens.
  async function open(i, { other = null, quiet = false } = {}) {
    const mine = ++state.turn;
    const same = state.at >= 0 && index.problem[state.at] === index.problem[i];
    state.at = i;
    state.token = 0;
    if (!quiet) try { history.replaceState(null, "", address(i) + (beside.value ? `/${encodeURIComponent(beside.value)}` : "")); } catch { /* not allowed here */ }
    paintList();
    let trace = null;
    try { trace = await traceOf(i); } catch (error) { panes.replaceChildren(el("p", {}, error.message)); return; }
    if (mine !== state.turn) return;
    if (other !== null || !same || state.beside < 0 || labelOf(state.beside) !== beside.value) state.beside = partner(other || 0);
    const second = state.beside >= 0 ? await traceOf(state.beside) : null;
    if (mine !== state.turn) return;
    state.traces = [trace, second];
    repaint();
  }
  function partner(step) { // a trace of the second source on the same problem
    if (!beside.value || state.at < 0) return -1;
    const [from, to] = range(labels.indexOf(beside.value), index.problem[state.at]);
    const able = Array.from({ length: to - from }, (_, k) => from + k).filter((j) => index.pack[j] !== NONE && j !== state.at);
    if (!able.length) return -1;
    const k = able.indexOf(state.beside);
    return able[((k < 0 ? 0 : k + step) + able.length) % able.length];
  }
  function openBeside(by = 0) {
    state.beside = partner(by);
    if (state.at >= 0) open(state.at, { other: 0 });
  }
  function repaint() {
    if (!state.traces) return;
    const [a, b] = state.traces;
    let shared = 0;
    if (a && b) while (shared < Math.min(a.n, b.n) && a.pieces[shared] === b.pieces[shared]) shared++;
    panes.classList.toggle("two", Boolean(beside.value));
    panes.replaceChildren(pane(state.at, a, 0, b ? shared : -1), ...(beside.value ? [state.beside >= 0 ? pane(state.beside, b, 1, shared) : el("p", { class: "note" }, `No trace of ${beside.value} on this problem is in the page.`)] : []));
    paintLegend();
    select(0, 0, false);
  }
  function pane(i, trace, side, shared) {
    const facts = [rightness[index.correct[i]], `${count(index.tokens[i])} tokens`, finite(index.nll[i]) ? `${fixed(index.nll[i] * index.tokens[i], 1)} nats, ${fixed(index.nll[i], 3)} per token` : "not scored",
      finite(index.z[i]) ? `excess z ${fixed(index.z[i])}` : "", index.flagged[i] === 1 ? "⚑ flagged as novel" : "", index.cluster[i] !== UNKNOWN ? `cluster ${index.cluster[i]}` : "", trace?.answer ? `answer ${trace.answer}` : "", trace?.finish ? `finish ${trace.finish}` : "", side && shared >= 0 ? `the first ${count(shared)} tokens are the same` : ""].filter(Boolean);
    const copyLink = el("button", { type: "button", onclick: (e) => copy(location.href.split("#")[0] + address(i), e.target) }, "Copy link");
    const head = el("div", { class: "panehead" }, el("h4", {}, badge(index.sources[index.source[i]]), ` ${keyOf(i)}`), side ? el("span", {}, el("button", { type: "button", "aria-label": "Previous sample on the right", onclick: () => openBeside(-1) }, "‹ ["), " ", el("button", { type: "button", "aria-label": "Next sample on the right", onclick: () => openBeside(1) }, "] ›")) : copyLink);
    const at = (e) => { if (e.target.token !== undefined) select(side, e.target.token, false); };
    const body = el("div", { class: "tokens", tabindex: 0, role: "group", "aria-label": `Tokens of ${keyOf(i)}`, onpointerover: at, onclick: at, onfocus: () => { if (state.side !== side) select(side, 0, false); } });
    if (trace) fill(body, trace, shared);
    else body.append(el("p", { class: "note" }, "Its tokens are not in the page; see: analyzer show RUN KEY."));
    const asked = trace?.prompt && !side ? el("details", { class: "asked" }, el("summary", {}, "Prompt"), el("p", { class: "prompt" }, trace.prompt)) : null;
    return el("article", { class: "pane", "data-side": side }, head, el("p", { class: "note" }, facts.join(" · ")), asked, body);
  }
  // Paragraphs are made a few at a time, so that the first tokens of a long trace stand at once.
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
          const span = el("span", {}, text === "" ? t === trace.n - 1 ? "␣end" : "·" : text);
          span.token = t;
          span.classList.toggle("none", text === "");
          span.classList.toggle("hit", marks.has(t));
          span.classList.toggle("fork", t === shared);
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
    const out = new Set(), words = search.value.trim().toLowerCase();
    if (!state.hits || !words) return out;
    const text = trace.text.toLowerCase(), ends = [];
    let at = 0;
    for (const piece of trace.pieces) ends.push(at += piece.length);
    for (let from = text.indexOf(words), t = 0; from >= 0; from = text.indexOf(words, from + 1)) {
      while (ends[t] <= from) t++;
      for (let k = t; k < ends.length && (k === 0 || ends[k - 1] < from + words.length); k++) out.add(k);
    }
    return out;
  }
  function colour(body, trace, from) {
    const { of, edges } = MODES[state.mode], values = of(trace);
    for (let t = from; t < body.spans.length; t++) {
      let k = 0;
      while (k < edges.length && values[t] >= edges[k]) k++;
      const classes = body.spans[t].classList;
      for (let h = 1; h < 6; h++) classes.toggle(`h${h}`, h === k);
    }
  }
  function recolour() {
    state.mode = mode.value;
    remembered.set("mode", state.mode);
    for (const pane of $$(".pane", panes)) { const trace = state.traces[+pane.dataset.side]; if (trace?.n) colour($(".tokens", pane), trace, 0); }
    paintLegend();
  }
  function paintLegend() {
    const { name, words } = MODES[state.mode];
    legend.replaceChildren(`Background, ${name}: `, ...words.map((text, k) => el("span", { class: `chip-h h${k}` }, text)));
  }
  function select(side, t, scroll) {
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
      others ? el("ol", { class: "others", "aria-label": "Likelier tokens" }, ...others.map(([name, log]) => { const bar = el("i"); bar.style.width = `${Math.exp(log ?? -99) * 6}rem`; return el("li", {}, bar, `${fixed(Math.exp(log ?? -Infinity), 3)} `, el("code", {}, JSON.stringify(name))); })) : el("span", { class: "note" }, " Likelier tokens are stored only where the surprisal is high."));
  }
  function jump(way) {
    const side = state.side || 0, trace = state.traces?.[side];
    if (!trace) return;
    for (let t = state.token + way; t >= 0 && t < trace.n; t += way) if (trace.surprisal[t] >= +limit.value) { reach(side, t); return; }
    said.textContent = `No token of ${limit.value} nats or more that way.`;
  }
  function reach(side, t) { // a token whose paragraph may still be in the making
    const body = $(`.pane[data-side="${side}"] .tokens`, panes);
    if (body.spans[t]) { select(side, t, true); body.focus({ preventScroll: true }); } else setTimeout(() => reach(side, t), 20);
  }

  on(host, "keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
    const side = state.side || 0, inTokens = e.target.classList.contains("tokens");
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -1e9, End: 1e9 };
    const act = { j: () => step(1), k: () => step(-1), n: () => jump(1), p: () => jump(-1), "/": () => search.focus(), "[": () => openBeside(-1), "]": () => openBeside(1), "?": () => { help.hidden = !help.hidden; },
      c: () => { const names = Object.keys(MODES); mode.value = names[(names.indexOf(state.mode) + 1) % names.length]; recolour(); },
      s: () => { beside.value = beside.value ? "" : labels.find((l) => l === index.reference && l !== labelOf(state.at)) || labels.find((l) => l !== labelOf(state.at)) || ""; openBeside(); } }[e.key];
    if (inTokens && e.key in moves) { e.preventDefault(); select(side, state.token + moves[e.key], true); }
    else if (!inTokens && (e.key === "ArrowDown" || e.key === "ArrowUp") && e.target === box) { e.preventDefault(); step(e.key === "ArrowDown" ? 1 : -1); }
    else if (act) { e.preventDefault(); act(); }
  });
  routes.trace = async (label, name, sample, other) => {
    const i = find(label, name, sample);
    show("viewer");
    if (i < 0) { panes.replaceChildren(el("p", { role: "alert" }, `This report has no trace ${[label, name, sample].join("/")}.`)); state.traces = null; return; }
    if (labels.includes(other)) beside.value = other;
    if (!list.includes(i)) { for (const s of [source, correct, flagged, problem, search]) s.value = ""; filter(); }
    const k = list.indexOf(i);
    box.scrollTop = (k - 3) * ROW;
    await open(i, { quiet: true });
    $(".tokens", panes)?.focus();
  };
  filter();
  paintLegend();
  if (list.length && !location.hash.startsWith("#/trace")) {
    // the first trace is shown when the reader comes near: it decodes a pack
    new IntersectionObserver((seen, observer) => { if (seen.some((s) => s.isIntersecting)) { observer.disconnect(); if (state.at < 0) open(list.find((i) => index.flagged[i] === 1) ?? list[0], { quiet: true }); } }, { rootMargin: "600px" }).observe(host);
  }
});

ready.then(follow, (error) => { for (const id of ["map", "compared", "prefixes", "traces"]) $(`#${id}`)?.append(el("p", { role: "alert" }, String(error.message || error))); });
