// The map of the landscape: paths, the step of the chosen rule, and the start.
const map = $("map");
let ground = null;
const size = () => {
  const width = map.clientWidth || 600;
  return { width, height: Math.min(620, Math.round(width * (innerWidth < 700 ? 0.62 : 0.74))) };
};
function places() {
  const [[left, right], [bottom, top]] = landscape().box, { width, height } = size();
  return {
    px: ([x, y]) => [((x - left) / (right - left)) * width, ((top - y) / (top - bottom)) * height],
    at: ([i, j]) => [left + ((right - left) * i) / width, top - ((top - bottom) * j) / height],
    scale: [width / (right - left), height / (top - bottom)],
  };
}
const shownRuns = () => [...runs.keys()].filter((name) => view.shown.has(name));

function drawMap() {
  const { width, height } = size(), t = now(), { px, scale } = places();
  const { pen, ratio } = Draw.open(map, height);
  const key = `${view.landscape} ${width} ${height} ${ratio} ${Draw.color("paper")}`;
  if (ground?.key !== key) ground = { key, picture: Draw.ground(landscape(), Math.round(width * ratio), Math.round(height * ratio)) };
  pen.drawImage(ground.picture, 0, 0, width, height);
  drawPoints(pen, px, height);
  const order = shownRuns().sort((a, b) => (a === view.chosen) - (b === view.chosen)), paper = Draw.color("paper");
  for (const name of order) {
    const run = runs.get(name), all = run.x.map((x) => px(landscape().coordinates(x))), end = Math.min(t, run.steps);
    const front = name === view.chosen, dash = optimizers.get(name).dash;
    Draw.path(pen, all, { stroke: hue(name), width: 1, alpha: 0.28 });
    Draw.path(pen, all.slice(0, end + 1), { stroke: paper, width: front ? 5 : 4, alpha: 0.55 });
    Draw.path(pen, all.slice(0, end + 1), { stroke: hue(name), width: front ? 2.8 : 2, dash });
    if (view.steps <= 100) for (const at of all.slice(0, end + 1)) Draw.dot(pen, at, front ? 2.2 : 1.7, { fill: hue(name) });
  }
  for (const name of order) {
    const run = runs.get(name), end = Math.min(t, run.steps), at = px(landscape().coordinates(run.x[end]));
    if (name === view.chosen) glyphs(pen, run, end, at, scale);
    if (run.diverged && end === run.steps) for (const sign of [1, -1]) Draw.path(pen, [[at[0] - 6, at[1] - 6 * sign], [at[0] + 6, at[1] + 6 * sign]], { stroke: hue(name), width: 2.5 });
    else Draw.dot(pen, at, name === view.chosen ? 6.5 : 5, { fill: hue(name), stroke: paper, width: 2 });
  }
  Draw.dot(pen, px(view.start), 6, { fill: "#ffffff", stroke: "#111111", width: 2 });
  nameHeads(pen, order, t, px, width, height);
  map.setAttribute("aria-label", `Map of ${landscape().title}, start at ${view.start.map(place3).join(", ")}, step ${t}. ` +
    order.map((name) => `${optimizers.get(name).title}: loss ${brief(runs.get(name).loss[Math.min(t, runs.get(name).steps)])}`).join("; "));
}

function drawPoints(pen, px, height) {
  const ink = Draw.color("ink"), many = landscape().points.length > 30;
  for (const [x, y, , kind] of landscape().points) {
    const at = px([x, y]);
    if (kind === "global minimum") Draw.star(pen, at, 10, { fill: Draw.color("gold"), stroke: "#4a3a00" });
    else if (kind === "local minimum") Draw.dot(pen, at, many ? 2.6 : 5, { stroke: ink, width: many ? 1 : 1.4 });
    else if (kind === "saddle" && !many) for (const sign of [1, -1]) Draw.path(pen, [[at[0] - 4, at[1] - 4 * sign], [at[0] + 4, at[1] + 4 * sign]], { stroke: ink, width: 1, alpha: 0.6 });
    else if (kind === "valley") Draw.path(pen, [[at[0], 0], [at[0], height]], { stroke: Draw.color("gold"), width: 3, alpha: 0.8 });
  }
}

// The name of each rule at the head of its path, where it does not cover another name.
function nameHeads(pen, order, t, px, width, height) {
  if (order.length > 6) return;
  const taken = [];
  pen.font = `600 ${pen.font}`;
  for (const name of [...order].reverse()) {
    const run = runs.get(name), [x, y] = px(landscape().coordinates(run.x[Math.min(t, run.steps)])), text = optimizers.get(name).title;
    const wide = pen.measureText(text).width, left = x + 12 + wide > width ? x - 12 - wide : x + 12;
    let top = Draw.clamp(y + 4, 14, height - 6);
    while (taken.some((other) => Math.abs(other.top - top) < 15 && left < other.right && left + wide > other.left)) top += 15;
    taken.push({ left, right: left + wide, top });
    Object.assign(pen, { lineWidth: 3.5, strokeStyle: Draw.color("paper"), fillStyle: hue(name), globalAlpha: 0.9 });
    pen.strokeText(text, left, top);
    pen.globalAlpha = 1;
    pen.fillText(text, left, top);
  }
}

// Directions at the head of the chosen path, at a readable length; the ellipse has each coordinate's effective rate.
function glyphs(pen, run, t, at, scale) {
  if (!run.steps) return;
  const step = Math.min(t, run.steps - 1), flat = (vector) => {
    const [x, y] = direction(vector);
    return [x * scale[0], -y * scale[1]];
  };
  const sized = ([x, y], pixels) => { const long = Math.hypot(x, y); return long ? [(x / long) * pixels, (y / long) * pixels] : [0, 0]; };
  const u = flat(run.update[step]), drawn = Draw.clamp(Math.hypot(...u), 22, 90);
  if (run.shape[1] === 1) {
    const rates = effective(run, step), biggest = Math.max(...rates);
    if (biggest > 0 && rates.every(Number.isFinite)) {
      pen.save();
      Object.assign(pen, { strokeStyle: hue(run.name), lineWidth: 1.5, globalAlpha: 0.9 });
      pen.beginPath();
      pen.ellipse(at[0], at[1], Math.max(2, (34 * rates[0]) / biggest), Math.max(2, (34 * rates[1]) / biggest), 0, 0, 2 * Math.PI);
      pen.stroke();
      Object.assign(pen, { fillStyle: hue(run.name), globalAlpha: 0.12 });
      pen.fill();
      pen.restore();
    }
  }
  Draw.arrow(pen, at, sized(flat(run.g[step].map((each) => -each)), 46), { stroke: Draw.color("soft"), width: 2, dash: "4 3" });
  if (momentumOf(run)) Draw.arrow(pen, at, sized(flat(run.m[step].map((each) => -each)), 46), { stroke: Draw.color("blue"), width: 2.4 });
  Draw.arrow(pen, at, sized(u, drawn), { stroke: Draw.color("ink"), width: 2.8 });
}
const direction = (vector) => landscape().coordinates(landscape().plane.origin.map((each, i) => each + vector[i]));
const momentumOf = (run) => run.m.some((m) => m.some((each) => each !== 0)) && !["rmsprop-centered", "laprop"].includes(run.name);
const effective = (run, step) => run.update[step].map((each, i) => (run.g[step][i] ? Math.abs(each / run.g[step][i]) : NaN));

// --- the start, by pointer and by keys ---

function setStart(at) {
  const [[left, right], [bottom, top]] = landscape().box;
  view.start = [Draw.clamp(at[0], left, right), Draw.clamp(at[1], bottom, top)];
  own();
  refresh();
  say(`Start at ${view.start.map(place3).join(", ")}`);
}
const where = (event) => { const box = map.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
map.addEventListener("click", (event) => setStart(places().at(where(event))));
map.addEventListener("pointermove", (event) => {
  if (view.playing || event.pointerType === "touch") return;
  const [i, j] = where(event), { px } = places();
  let best = null;
  for (const name of shownRuns()) {
    runs.get(name).x.forEach((x, t) => {
      const [a, b] = px(landscape().coordinates(x)), far = Math.hypot(a - i, b - j);
      if (far < 12 && (!best || far < best.far - 0.01)) best = { far, t };
    });
  }
  hover(best ? best.t : null);
});
map.addEventListener("pointerleave", () => hover(null));
map.addEventListener("keydown", (event) => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!move) return;
  event.preventDefault();
  const share = event.shiftKey ? 0.1 : 0.02;
  setStart(view.start.map((each, i) => each + move[i] * share * (landscape().box[i][1] - landscape().box[i][0])));
});
function hover(t) {
  if (t === view.hover) return;
  view.hover = t;
  draw();
}
