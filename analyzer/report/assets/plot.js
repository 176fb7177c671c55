// A scatter plot on canvas: one tab stop, the nearest point read out, arrows move, Enter opens. Marker and fill say what
// the colour says.
const MARKERS = {
  o: (c, x, y, r) => c.arc(x, y, r, 0, 7),
  s: (c, x, y, r) => c.rect(x - r, y - r, 2 * r, 2 * r),
  "^": (c, x, y, r) => polygon(c, x, y, r * 1.25, 3, -90),
  v: (c, x, y, r) => polygon(c, x, y, r * 1.25, 3, 90),
  D: (c, x, y, r) => polygon(c, x, y, r * 1.25, 4, 0),
  p: (c, x, y, r) => polygon(c, x, y, r * 1.15, 5, -90),
  P: (c, x, y, r) => cross(c, x, y, r, 0),
  X: (c, x, y, r) => cross(c, x, y, r, Math.PI / 4),
  "*": (c, x, y, r) => polygon(c, x, y, r * 1.4, 10, -90, 0.5),
};
function polygon(c, x, y, r, n, turn, inner = 1) {
  for (let i = 0; i < n; i++) {
    const angle = turn * Math.PI / 180 + i * 2 * Math.PI / n, q = i % 2 ? r * inner : r;
    c[i ? "lineTo" : "moveTo"](x + q * Math.cos(angle), y + q * Math.sin(angle));
  }
  c.closePath();
}
function cross(c, x, y, r, turn) {
  for (const a of [turn, turn + Math.PI / 2]) {
    c.moveTo(x - r * Math.cos(a), y - r * Math.sin(a));
    c.lineTo(x + r * Math.cos(a), y + r * Math.sin(a));
  }
}

function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 3 || 1));
  const wide = [1, 2, 5, 10].map((m) => m * step).find((s) => (high - low) / s <= 6) || step;
  const out = [];
  for (let t = Math.ceil(low / wide) * wide; t <= high + 1e-9; t += wide) out.push(Math.abs(t) < 1e-12 ? 0 : t);
  return out;
}

// `plot.show({ids, x, y, look, xlabel, ylabel, diagonal})`: look(id) -> {color, marker, filled, alpha, ring};
// say(id) -> text; open(id).
function scatter(host, { label, say, open }) {
  const canvas = el("canvas", { tabindex: 0, role: "application", "aria-label": label });
  const said = el("output", { class: "said" }, "Point, or use the arrow keys; Enter opens the trace.");
  host.replaceChildren(canvas, said);
  let data = null, at = -1, places = [];
  const draw = () => {
    if (!data || !canvas.clientWidth) return;
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const c = canvas.getContext("2d");
    c.scale(ratio, ratio);
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
      c.beginPath();
      MARKERS[marker](c, x, y, size);
      if (filled) c.fill();
      c.stroke();
      if (ring) { c.globalAlpha = 1; c.strokeStyle = muted; c.beginPath(); c.arc(x, y, size + 4, 0, 7); c.stroke(); }
    });
    c.globalAlpha = 1;
    if (at >= 0) { const [x, y] = places[at]; c.strokeStyle = ink("ink"); c.lineWidth = 2; c.beginPath(); c.arc(x, y, size + 5, 0, 7); c.stroke(); }
  };
  const pick = (i) => { at = i; said.textContent = say(data.ids[i]); draw(); };
  const nearest = (x, y, within) => {
    let best = -1, least = within ** 2;
    places.forEach(([a, b], i) => { const d = (a - x) ** 2 + (b - y) ** 2; if (d < least) { least = d; best = i; } });
    return best;
  };
  on(canvas, "pointermove", (e) => { const i = nearest(e.offsetX, e.offsetY, 25); if (i >= 0 && i !== at) pick(i); });
  on(canvas, "click", (e) => { const i = nearest(e.offsetX, e.offsetY, 25); if (i >= 0) { pick(i); open(data.ids[i]); } });
  on(canvas, "keydown", (e) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    if (e.key === "Enter" && at >= 0) open(data.ids[at]);
    if (!way || !places.length) return;
    e.preventDefault();
    if (at < 0) { pick(0); return; }
    const [x, y] = places[at];
    let best = at, least = Infinity;
    places.forEach(([a, b], i) => { // the nearest that lies more that way than aside
      const along = (a - x) * way[0] + (b - y) * way[1], aside = Math.abs((a - x) * way[1]) + Math.abs((b - y) * way[0]);
      if (along > 0.5 && along >= aside && along + aside < least) { least = along + aside; best = i; }
    });
    pick(best);
  });
  new ResizeObserver(draw).observe(canvas);
  onTheme.push(draw);
  return { show(next) { data = next; at = -1; draw(); } };
}
