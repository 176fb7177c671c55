// The map of clusters and the page that compares two sources problem by problem. What they show is read from the index;
// no interval is made here: those of a pair stand above the plot where an analysis gave them.
const choice = (labels) => labels.map((s) => [s, s]);

ready.then((found) => {
  const host = $("#map");
  if (!found || !host) return;
  const ids = [...index.x.keys()].filter((i) => finite(index.x[i]));
  if (!ids.length) { host.append(el("p", { class: "note" }, "No analysis placed the traces on a map.")); return; }
  const excess = ids.map((i) => index.z[i]).filter(finite).sort((a, b) => a - b), top = excess[Math.floor(excess.length * 0.95)];
  const problems = [...new Set(ids.map(problemOf))].sort();
  const colour = el("select", {}, ...options([["source", "source"], ["correct", "correctness"], ["z", "excess surprisal"]]));
  const problem = el("select", {}, ...options([["", `all ${problems.length}`], ...choice(problems)]));
  const box = el("div", { class: "scatter" }), legend = el("p", { class: "legend" });
  const boxes = index.sources.map((s) => el("input", { type: "checkbox", checked: true, onchange: update }));
  host.append(el("div", { class: "filters" }, field("colour", colour), field("problem", problem),
    el("fieldset", {}, el("legend", {}, "sources"), ...index.sources.map((s, k) => el("label", { class: "check" }, boxes[k], badge(s), s.label)))), box, legend);
  const plot = scatter(box, { label: "Map of traces around the mean of their problem", say: describe, open: (i) => go(address(i)) });
  const look = {
    source: (i) => ({ color: index.sources[index.source[i]].color, marker: index.sources[index.source[i]].marker, filled: index.correct[i] === 1 }),
    correct: (i) => ({ color: ink(["outside", "inside", "muted"][index.correct[i]]), marker: ["X", "o", "s"][index.correct[i]], filled: index.correct[i] === 1 }),
    z: (i) => ({ color: ink("heat"), marker: index.z[i] > top ? "^" : "o", alpha: clamp(index.z[i] / (top || 1), 0.1, 1) || 0.05 }),
  };
  const words = {
    source: "Marker and colour: the source. Filled: correct.",
    correct: "Filled circle: correct; cross: wrong; square: not known.",
    z: "The stronger, the larger the excess surprisal z under the base; triangle: among the top 5 %.",
  };
  function describe(i) {
    return `${keyOf(i)}: ${rightness[index.correct[i]]}, cluster ${index.cluster[i]} of its problem, excess z ${fixed(index.z[i])}, ${fixed(index.nll[i])} nats per token, ${count(index.tokens[i])} tokens${index.exemplar[i] ? ", exemplar" : ""}`;
  }
  function update() {
    const chosen = ids.filter((i) => boxes[index.source[i]].checked && (!problem.value || problemOf(i) === problem.value));
    const cache = {}; // computed colours are slow to ask for
    const fast = (i) => { const key = colour.value === "z" ? i : `${index.source[i]} ${index.correct[i]}`; return { ...(cache[key] = cache[key] || look[colour.value](i)), ring: problem.value && index.exemplar[i] }; };
    plot.show({ ids: chosen, x: (i) => index.x[i], y: (i) => index.y[i], look: fast, xlabel: "first principal component", ylabel: "second principal component" });
    legend.textContent = `${count(chosen.length)} traces. ${words[colour.value]} Ringed, with one problem chosen: the exemplar of its cluster.`;
  }
  for (const control of [colour, problem]) on(control, "change", update);
  onTheme.push(update);
  update();
});

// The mark of a source as a small drawing, for legends.
function badge({ color, marker }) {
  const canvas = el("canvas", { width: 24, height: 24, class: "badge", "aria-hidden": "true" });
  const c = canvas.getContext("2d");
  c.fillStyle = c.strokeStyle = color;
  c.lineWidth = 3;
  c.beginPath();
  MARKERS[marker](c, 12, 12, 7);
  c.fill();
  c.stroke();
  return canvas;
}

ready.then((found) => {
  const host = $("#compared");
  if (!found || !host) return;
  const labels = index.sources.map((s) => s.label);
  if (labels.length < 2) { host.append(el("p", { class: "note" }, "There is one source: nothing to compare.")); return; }
  const start = Math.max(0, labels.indexOf(index.reference));
  const pair = [el("select", {}, ...options(choice(labels), labels[start])), el("select", {}, ...options(choice(labels), labels.includes(host.dataset.focus) ? host.dataset.focus : labels[start === 0 ? 1 : 0]))];
  const measure = el("select", {}, ...options([["pass", "share correct"], ["nll", "surprisal per token (nats)"], ["tokens", "tokens per trace"]]));
  const box = el("div", { class: "scatter" }), lines = el("ul"), table = el("div");
  host.append(el("div", { class: "filters" }, field("first source", pair[0]), field("second source", pair[1]), field("measure", measure)), lines, el("div", { class: "split" }, box, table));
  let rows = [];
  const plot = scatter(box, { label: "Problems: the first source across, the second up", say: (i) => sentence(rows[i]), open: (i) => go(beside(rows[i])) });
  const mean = (from, to, value) => {
    let sum = 0, n = 0;
    for (let i = from; i < to; i++) { const v = value(i); if (finite(v)) { sum += v; n++; } }
    return [n ? sum / n : NaN, n];
  };
  const values = { pass: (i) => index.correct[i] === 2 ? NaN : index.correct[i], nll: (i) => index.nll[i], tokens: (i) => index.tokens[i] || NaN };
  const sentence = (row) => `${row.problem}: ${pair[0].value} ${fixed(row.a[0])} (n = ${row.a[1]}), ${pair[1].value} ${fixed(row.b[0])} (n = ${row.b[1]})`;
  const beside = (row) => `${address(row.first)}/${encodeURIComponent(pair[1].value)}`;
  function update() {
    const [a, b] = pair.map((select) => labels.indexOf(select.value));
    rows = index.problems.map((problem, p) => {
      const [x, y] = [range(a, p), range(b, p)];
      return { problem, first: x[0], a: mean(...x, values[measure.value]), b: mean(...y, values[measure.value]) };
    }).filter((row) => row.a[1] && row.b[1]);
    const alone = [a, b].map((s) => index.problems.filter((_, p) => range(s, p)[1] > range(s, p)[0]).length - rows.length);
    const up = rows.filter((r) => r.b[0] > r.a[0]).length, down = rows.filter((r) => r.b[0] < r.a[0]).length;
    const sum = (side) => rows.reduce((total, row) => total + row[side][0], 0) / rows.length;
    const say = [`${count(rows.length)} problems in both${alone.some(Boolean) ? `; left out for want of the other: ${count(alone[0])} of ${pair[0].value}, ${count(alone[1])} of ${pair[1].value}` : ""}.`];
    if (rows.length) say.push(`Mean over problems: ${pair[0].value} ${fixed(sum("a"), 3)}, ${pair[1].value} ${fixed(sum("b"), 3)}; ${pair[1].value} is higher on ${count(up)}, lower on ${count(down)}, equal on ${count(rows.length - up - down)}. A description of these samples, without intervals; for those: analyzer compare RUN A B.`);
    lines.replaceChildren(...say.map((text) => el("li", {}, text)));
    const name = measure.selectedOptions[0].text;
    const top = measure.value === "pass" ? 1 : Math.max(...rows.map((r) => Math.max(r.a[0], r.b[0])), 0);
    plot.show({ ids: [...rows.keys()], x: (i) => rows[i].a[0], y: (i) => rows[i].b[0], diagonal: true, limits: [-0.03 * top, 1.03 * top || 1],
      look: (i) => ({ color: index.sources[b].color, marker: rows[i].b[0] > rows[i].a[0] ? "^" : rows[i].b[0] < rows[i].a[0] ? "v" : "o", filled: rows[i].b[0] > rows[i].a[0] }), xlabel: `${pair[0].value}: ${name}`, ylabel: `${pair[1].value}: ${name}` });
    const far = [...rows].sort((r, q) => Math.abs(q.b[0] - q.a[0]) - Math.abs(r.b[0] - r.a[0])).slice(0, 100);
    table.replaceChildren(grid(["problem", `${pair[0].value}`, "n", `${pair[1].value}`, "n", "difference"],
      far.map((r) => [el("a", { href: beside(r) }, r.problem), fixed(r.a[0], 3), count(r.a[1]), fixed(r.b[0], 3), count(r.b[1]), fixed(r.b[0] - r.a[0], 3)]), [false, true, true, true, true, true], `${name} by problem`),
    el("p", { class: "note" }, `${count(far.length)} of ${count(rows.length)} problems, the largest differences first.`));
  }
  for (const control of [...pair, measure]) on(control, "change", () => { update(); if (control !== measure) history.replaceState(null, "", `#/compare/${pair.map((s) => encodeURIComponent(s.value)).join("/")}`); });
  routes.compare = (a, b) => { if (labels.includes(a) && labels.includes(b)) { [pair[0].value, pair[1].value] = [a, b]; update(); } show("compare"); };
  update();
});
