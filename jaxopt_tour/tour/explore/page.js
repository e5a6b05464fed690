// The page: what is chosen, the runs that follow from it, and everything that shows them.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const { length } = Rules;
const landscapes = new Map(data.landscapes.map((each) => [each.name, Landscapes.make(each)]));
const optimizers = new Map(data.optimizers.map((each) => [each.name, each]));
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const view = {
  landscape: "styblinski-tang", start: null, steps: 300, t: 300, hover: null, playing: false, chosen: "adam", preset: "tuned",
  shown: new Set(data.optimizers.filter((each) => each.shown).map((each) => each.name)), values: {},
};
let runs = new Map();
let ground = null;

const html = (name, className, parent, text) => {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  parent?.append(node);
  return node;
};
const say = (text) => { $("live").textContent = text; };
const landscape = () => landscapes.get(view.landscape);
const hue = (name) => Draw.color(optimizers.get(name).hue);
const lowest = () => Math.min(...landscape().points.filter((point) => point[3] !== "saddle").map((point) => point[2]));
const now = () => view.hover ?? view.t;
const number = (x) => (!Number.isFinite(x) ? "–" : x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(2) : String(+x.toPrecision(4)));

// --- settings ---

function settle(preset) {
  view.preset = preset;
  if (preset === "source") view.landscape = data.preset.landscape;
  view.start = [...(preset === "source" ? data.preset.start : landscape().start)];
  if (preset === "source") { view.steps = data.preset.steps; view.shown = new Set(Object.keys(data.preset.settings)); }
  for (const one of data.optimizers) view.values[one.name] = defaults(one.name);
  view.t = view.steps;
}
function defaults(name) {
  const own = view.preset === "source" ? data.preset.settings[name] : null;
  return { rate: landscape().rates[name], ...optimizers.get(name).settings, ...own };
}
function settingsOf(name) {
  const values = view.values[name];
  if (name !== "muon") return values;
  const coefficients = data.coefficients[values.coefficients];
  return { ...values, polynomials: coefficients.steps[values.steps - 1], prescale: coefficients.prescale };
}
const scales = {
  log: [(p) => 10 ** p, (v) => Math.log10(v)],
  "decay-rate": [(p) => 1 - 10 ** -p, (v) => -Math.log10(1 - v)],
  "zero-log": [(p, low) => (p <= low ? 0 : 10 ** p), (v, low) => (v > 0 ? Math.log10(v) : low)],
  integer: [(p) => Math.round(p), (v) => v],
};

// --- runs ---

function compute() {
  runs = new Map();
  for (const name of optimizers.keys())
    if (view.shown.has(name) || name === view.chosen) runs.set(name, Rules.run(name, landscape(), view.start, settingsOf(name), view.steps));
  view.t = Math.min(view.t, view.steps);
  const time = $("time");
  time.max = view.steps;
  time.value = view.t;
}
function refresh() { compute(); panel(); draw(); }
function own() { view.preset = "own"; $("preset").value = "own"; }

// --- the map ---

const map = $("map");
const size = () => ({ width: map.clientWidth || 600, height: Math.min(620, Math.round((map.clientWidth || 600) * 0.82)) });
function places() {
  const [[left, right], [bottom, top]] = landscape().box, { width, height } = size();
  return {
    px: ([x, y]) => [((x - left) / (right - left)) * width, ((top - y) / (top - bottom)) * height],
    at: ([i, j]) => [left + ((right - left) * i) / width, top - ((top - bottom) * j) / height],
    scale: [width / (right - left), height / (top - bottom)],
  };
}
function drawMap() {
  const { width, height } = size(), t = now(), { px, scale } = places();
  const { pen, ratio } = Draw.open(map, height);
  const key = `${view.landscape} ${width} ${height} ${ratio} ${Draw.color("paper")}`;
  if (ground?.key !== key) ground = { key, picture: Draw.ground(landscape(), Math.round(width * ratio), Math.round(height * ratio)) };
  pen.drawImage(ground.picture, 0, 0, width, height);
  const ink = Draw.color("ink"), paper = Draw.color("paper"), many = landscape().points.length > 30;
  for (const [x, y, , kind] of landscape().points) {
    const at = px([x, y]);
    if (kind === "global minimum") Draw.star(pen, at, 10, { fill: Draw.color("gold"), stroke: "#4a3a00" });
    else if (kind === "local minimum") Draw.dot(pen, at, many ? 2.6 : 5, { stroke: ink, width: many ? 1 : 1.4 });
    else if (kind === "saddle" && !many) for (const sign of [1, -1]) Draw.path(pen, [[at[0] - 4, at[1] - 4 * sign], [at[0] + 4, at[1] + 4 * sign]], { stroke: ink, width: 1, alpha: 0.6 });
    else if (kind === "valley") Draw.path(pen, [[at[0], 0], [at[0], height]], { stroke: Draw.color("gold"), width: 3, alpha: 0.8 });
  }
  const order = [...runs.keys()].filter((name) => view.shown.has(name)).sort((a, b) => (a === view.chosen) - (b === view.chosen));
  for (const name of order) {
    const run = runs.get(name), all = run.x.map((x) => px(landscape().coordinates(x))), end = Math.min(t, run.steps);
    const front = name === view.chosen, dash = optimizers.get(name).dash;
    Draw.path(pen, all, { stroke: hue(name), width: 1, alpha: 0.28 });
    Draw.path(pen, all.slice(0, end + 1), { stroke: paper, width: front ? 5 : 4, alpha: 0.55 });
    Draw.path(pen, all.slice(0, end + 1), { stroke: hue(name), width: front ? 2.8 : 2, dash });
  }
  for (const name of order) {
    const run = runs.get(name), end = Math.min(t, run.steps), at = px(landscape().coordinates(run.x[end]));
    if (name === view.chosen) glyphs(pen, run, end, at, scale);
    if (run.diverged && end === run.steps) for (const sign of [1, -1]) Draw.path(pen, [[at[0] - 6, at[1] - 6 * sign], [at[0] + 6, at[1] + 6 * sign]], { stroke: hue(name), width: 2.5 });
    else Draw.dot(pen, at, name === view.chosen ? 6.5 : 5, { fill: hue(name), stroke: paper, width: 2 });
  }
  Draw.dot(pen, px(view.start), 6, { fill: "#ffffff", stroke: "#111111", width: 2 });
  map.setAttribute("aria-label", `Map of ${landscape().title}, start at ${view.start.map(number).join(", ")}, step ${t}. ` +
    order.map((name) => `${optimizers.get(name).title}: loss ${number(runs.get(name).loss[Math.min(t, runs.get(name).steps)])}`).join("; "));
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
const direction = (vector) => { const here = landscape().coordinates(landscape().plane.origin.map((each, i) => each + vector[i])); return here; };
const momentumOf = (run) => run.m.some((m) => m.some((each) => each !== 0)) && run.name !== "rmsprop-centered";
const effective = (run, step) => run.update[step].map((each, i) => (run.g[step][i] ? Math.abs(each / run.g[step][i]) : NaN));

function setStart(at) {
  const [[left, right], [bottom, top]] = landscape().box;
  view.start = [Draw.clamp(at[0], left, right), Draw.clamp(at[1], bottom, top)];
  own();
  refresh();
}
const where = (event) => { const box = map.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
map.addEventListener("click", (event) => { setStart(places().at(where(event))); say(`Start at ${view.start.map(number).join(", ")}`); });
map.addEventListener("pointermove", (event) => {
  if (view.playing || event.pointerType === "touch") return;
  const [i, j] = where(event), { px } = places();
  let best = null;
  for (const [name, run] of runs) {
    if (!view.shown.has(name)) continue;
    run.x.forEach((x, t) => {
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
  say(`Start at ${view.start.map(number).join(", ")}`);
});
function hover(t) {
  if (t === view.hover) return;
  view.hover = t;
  draw();
}

// --- charts ---

let lossPlace = null, detailPlace = null;
function drawCharts() {
  const t = now(), bottom = lowest(), floor = 1e-12 * Math.max(1, Math.abs(bottom));
  const lines = [...runs].filter(([name]) => view.shown.has(name)).map(([name, run]) => ({
    values: run.loss.map((each) => Math.max(each - bottom, floor)), stroke: hue(name), dash: optimizers.get(name).dash, width: name === view.chosen ? 2.6 : 1.6,
  }));
  const high = Math.max(...lines.flatMap((line) => [line.values[0]]), 1e-9) * 3;
  const low = Math.max(1e-8, Math.min(...lines.flatMap((line) => line.values.filter(Number.isFinite)), high / 10));
  lossPlace = Draw.chart($("loss"), lines, { steps: view.steps, log: true, low, high, at: t, note: "log scale" });
  $("loss").setAttribute("aria-label", `Loss above the lowest value against ${view.steps} steps. ` + [...runs].filter(([name]) => view.shown.has(name))
    .map(([name, run]) => `${optimizers.get(name).title} ends at ${run.diverged ? "nowhere: it diverged" : number(run.loss[run.steps] - bottom)}`).join(", "));
  drawDetail(t);
}
const angle = (a, b) => {
  const long = length(a) * length(b);
  return long ? (Math.acos(Draw.clamp(a.reduce((sum, each, i) => sum + each * b[i], 0) / long, -1, 1)) * 180) / Math.PI : NaN;
};
const coordinateStyles = ["", "6 3", "2 3", "8 3 2 3"];
function drawDetail(t) {
  const run = runs.get(view.chosen), ink = Draw.color("ink"), soft = Draw.color("soft"), blue = Draw.color("blue"), own = hue(view.chosen);
  const kind = $("quantity").value, steps = run.update.map((_, i) => i);
  let lines = [], options = {}, text = "";
  if (kind === "rates") {
    lines = run.x[0].map((_, i) => ({ values: steps.map((k) => effective(run, k)[i]), stroke: own, dash: coordinateStyles[i], width: 1.8, first: 1 }));
    [options, text] = [{ log: true, note: "|step| / |gradient|, log scale" }, run.shape[1] === 1 ? "Full line: x. Dashed: y." : "One line an entry of the weight."];
  } else if (kind === "state") {
    lines = [{ values: run.g.slice(0, -1).map((g) => -direction(g)[0]), stroke: soft, dash: "2 2", first: 1 }];
    if (momentumOf(run)) lines.push({ values: run.m.map((m) => -direction(m)[0]), stroke: blue, width: 1.8, first: 1 });
    const biggest = Math.max(...run.g.map((g) => Math.abs(direction(g)[0])), 1e-12), longest = Math.max(...run.update.map((u) => Math.abs(direction(u)[0])), 1e-12);
    lines.push({ values: run.update.map((u) => (direction(u)[0] / longest) * biggest), stroke: own, width: 2.2, first: 1 });
    [options, text] = [{ note: "first coordinate" }, `Dotted: −gradient. Blue: −momentum. Full: the step, enlarged ${number(biggest / longest)} times.`];
  } else if (kind === "angles") {
    lines = [
      { values: steps.map((k) => angle(run.update[k], run.g[k].map((each) => -each))), stroke: own, width: 2, first: 1 },
      { values: steps.map((k) => (k ? angle(run.update[k], run.update[k - 1]) : NaN)), stroke: soft, dash: "3 3", first: 1 },
    ];
    [options, text] = [{ low: 0, high: 180, note: "degrees", marks: [90] }, "Full: to steepest descent. Dashed: to the step before."];
  } else {
    const of = (vectors, i) => vectors.map((vector) => Rules.singularValues(vector, run.shape)[i] ?? NaN);
    for (const i of run.shape[1] === 1 ? [0] : [0, 1]) {
      lines.push({ values: of(run.g.slice(0, -1), i), stroke: soft, dash: "2 2", first: 1 });
      if (momentumOf(run)) lines.push({ values: of(run.m, i), stroke: blue, dash: "6 3", first: 1 });
      lines.push({ values: of(run.update, i), stroke: own, width: 2.2, first: 1 });
    }
    [options, text] = [{ log: true, note: "log scale" }, `Dotted: gradient. Blue: momentum. Full: step.${run.shape[1] === 1 ? " A 2×1 matrix has one singular value, its length." : ""}`];
    options.low = Math.max(1e-8, Math.min(...lines.flatMap((line) => line.values.filter((each) => each > 0)), 1));
  }
  detailPlace = Draw.chart($("detail"), lines, { steps: view.steps, at: t, ...options });
  $("legend").textContent = text;
  const title = optimizers.get(view.chosen).title, chosen = $("quantity").selectedOptions[0].textContent;
  $("detail").setAttribute("aria-label", `${title}: ${chosen}, step ${t}: ${lines.map((line) => number(line.values[Math.min(t, run.steps) - 1])).join(", ")}. ${text}`);
}
for (const [canvas, place] of [[$("loss"), () => lossPlace], [$("detail"), () => detailPlace]]) {
  canvas.addEventListener("pointermove", (event) => {
    if (view.playing || !place()) return;
    const step = Math.round(place().step(event.clientX - canvas.getBoundingClientRect().left));
    hover(step >= 0 && step <= view.steps ? step : null);
  });
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("click", () => { if (view.hover !== null) setTime(view.hover); });
}
$("quantity").addEventListener("change", () => drawDetail(now()));

// --- the rule, its terms, its settings ---

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
// How much of a term shows in this step, 0 to 1, and in words.
const terms = {
  gradient: (run, k) => [0.35 * (run.name === "sgd" ? 2 : 1), `the gradient has length ${number(length(run.g[k]))}`],
  momentum(run, k) {
    const turned = angle(run.info[k].before, run.info[k].used);
    const grown = length(run.info[k].before) / length(run.info[k].used);
    return [Number.isFinite(turned) ? Math.min(1, turned / 60 + 0.15 * Math.abs(Math.log(grown || 1))) : 0, `momentum turns the step by ${number(turned)}° and makes it ${number(grown)} gradients long`];
  },
  scale(run, k) {
    const d = run.info[k].divisors, low = Math.min(...d), high = Math.max(...d);
    return [high ? 1 - low / high : 0, low ? `the divisor is ${number(high / low)} times larger for ${d[0] >= d[d.length - 1] ? "x" : "y"}` : "the divisor is zero: there is no step"];
  },
  delta(run, k) {
    const up = Math.max(...run.info[k].numerator);
    return [Math.min(1, 0.15 * Math.abs(Math.log10(up))), `past steps make the numerator ${number(up)}`];
  },
  bias(run, k) {
    const c = run.info[k].correction;
    return [1 - Math.min(c, 1 / c), `bias correction multiplies the step by ${number(c)}`];
  },
  eps(run, k) {
    const eps = view.values[run.name].eps, share = Math.max(...run.info[k].divisors.map((d) => (d ? eps / d : 1)));
    return [share, `ε is ${percent(share)} of a divisor`];
  },
  decay: (run, k) => {
    const share = run.info[k].decayShare, decoupled = optimizers.get(run.name).decoupled;
    return [share, `${decoupled ? "weight decay" : "L2"} is ${percent(share)} of the ${decoupled ? "step" : "gradient"}`];
  },
  sign(run, k) {
    const sizes = run.info[k].before.map(Math.abs), ratio = Math.max(...sizes) / Math.min(...sizes);
    return [1 - 1 / ratio, `entries that differ ${number(ratio)} times in size move equally far`];
  },
  orthogonal(run, k) {
    const before = Rules.singularValues(run.info[k].before, run.shape), after = Rules.singularValues(run.info[k].d, run.shape);
    if (before.length === 1) return [Draw.clamp(0.3 * Math.abs(Math.log10(before[0])), 0.2, 1), `a length of ${number(before[0])} becomes ${number(after[0])}`];
    return [1 - before[1] / before[0], `singular values ${before.map(number).join(" and ")} become ${after.map(number).join(" and ")}`];
  },
};
function equation() {
  const one = optimizers.get(view.chosen), box = $("equation");
  box.replaceChildren();
  for (const line of one.equation) {
    const row = html("div", "", box);
    for (const piece of line.split(/(\{[a-z]+:[^}]*\})/)) {
      const found = /^\{([a-z]+):([^}]*)\}$/.exec(piece);
      if (found) html("span", "term", row, found[2]).dataset.term = found[1];
      else row.append(piece);
    }
  }
}
function acting() {
  const run = runs.get(view.chosen), k = Math.min(now(), run.steps) - 1, list = $("acting");
  list.replaceChildren();
  const nodes = [...$("equation").querySelectorAll(".term")], names = [...new Set(nodes.map((node) => node.dataset.term))];
  for (const node of nodes) { node.style.setProperty("--share", 0); node.classList.remove("most"); }
  if (k < 0) { html("li", "", list, "Before the first step: no term has acted."); return; }
  const found = names.map((name) => [name, ...terms[name](run, k)]).map(([name, share, text]) => [name, Number.isFinite(share) ? share : 0, text]);
  const most = found.reduce((a, b) => (b[1] > a[1] ? b : a))[0];
  for (const [name, share, text] of found) {
    for (const node of nodes.filter((each) => each.dataset.term === name)) {
      node.style.setProperty("--share", Draw.clamp(share, 0, 1).toFixed(3));
      node.classList.toggle("most", name === most);
    }
    if (name !== "decay" || share > 0) html("li", name === most ? "most" : "", list, text);
  }
}
function shownValue(name, value) {
  if (name === "eps" || (value && value < 1e-3)) return value.toExponential(1);
  return String(+value.toPrecision(4));
}
function sliders() {
  const box = $("settings"), values = view.values[view.chosen];
  box.replaceChildren();
  for (const name of ["rate", ...Object.keys(optimizers.get(view.chosen).settings)]) {
    if (name === "coefficients") {
      const label = html("label", "", box, "coefficients");
      const select = $("coefficients").cloneNode(true);
      Object.assign(select, { id: "set-coefficients", value: values.coefficients });
      label.append(select);
      select.addEventListener("change", () => { values.coefficients = select.value; own(); refreshRule(); });
      continue;
    }
    const about = data.settings[name], [from, to] = scales[about.scale];
    const label = html("label", "", box, about.label);
    const input = html("input", "", label);
    const whole = about.scale === "integer";
    Object.assign(input, { type: "range", id: `set-${name}`, min: about.low, max: about.high, step: whole ? 1 : 0.01, value: to(values[name], about.low) });
    const output = html("output", "", label, shownValue(name, values[name]));
    output.htmlFor = input.id;
    input.addEventListener("input", () => {
      values[name] = from(+input.value, about.low);
      output.textContent = shownValue(name, values[name]);
      input.setAttribute("aria-valuetext", output.textContent);
      own();
      refreshRule();
    });
  }
}
function refreshRule() { compute(); draw(); }
function choose(name) {
  view.chosen = name;
  if (!view.shown.has(name)) view.shown.add(name);
  refresh();
}
function panel() {
  const one = optimizers.get(view.chosen);
  $("chosen").textContent = one.title;
  $("note").textContent = one.note;
  equation();
  sliders();
  for (const node of document.querySelectorAll(".one")) {
    node.classList.toggle("edited", node.dataset.name === view.chosen);
    node.querySelector("input").checked = view.shown.has(node.dataset.name);
    node.querySelector("button").setAttribute("aria-pressed", String(node.dataset.name === view.chosen));
  }
  $("landscape").value = view.landscape;
  $("preset").value = view.preset;
  $("length").value = String(view.steps);
  $("formula").textContent = landscape().formula;
  $("about").textContent = `${landscape().about} Source: ${landscape().source}`;
}
for (const node of document.querySelectorAll(".one")) {
  const name = node.dataset.name;
  node.querySelector("input").addEventListener("change", (event) => {
    view.shown[event.target.checked ? "add" : "delete"](name);
    refresh();
  });
  node.querySelector("button").addEventListener("click", () => choose(name));
}
$("reset").addEventListener("click", () => { view.values[view.chosen] = defaults(view.chosen); refresh(); });
$("landscape").addEventListener("change", (event) => { view.landscape = event.target.value; settle("tuned"); refresh(); });
$("preset").addEventListener("change", (event) => { settle(event.target.value); refresh(); });
$("length").addEventListener("change", (event) => { view.steps = +event.target.value; view.t = view.steps; refresh(); });

// --- the table ---

function table() {
  const body = $("now"), t = now();
  const names = [...runs.keys()].filter((name) => view.shown.has(name));
  while (body.rows.length > names.length) body.deleteRow(-1);
  names.forEach((name, i) => {
    let row = body.rows[i];
    if (!row) {
      row = body.insertRow();
      html("th", "", row).scope = "row";
      for (let k = 0; k < 7; k++) row.insertCell();
    }
    const run = runs.get(name), end = Math.min(t, run.steps), [x, y] = landscape().coordinates(run.x[end]), step = run.update[end - 1];
    const texts = [run.diverged && end === run.steps ? `${end}, diverged` : String(end), ...[run.loss[end], run.loss[end] - lowest(), x, y].map(number),
      step ? number(length(step)) : "–", step ? `${number(Math.round(angle(step, run.g[end - 1].map((each) => -each))))}°` : "–"];
    if (row.cells[0].dataset.name !== name) {
      row.cells[0].dataset.name = name;
      row.cells[0].replaceChildren(document.querySelector(`.one[data-name="${name}"] svg`).cloneNode(true), optimizers.get(name).title);
    }
    texts.forEach((text, k) => { row.cells[k + 1].textContent = text; });
  });
}

// --- time ---

function draw() {
  drawMap();
  drawCharts();
  acting();
  table();
  $("step").textContent = `step ${now()}`;
  if ($("matrix").value === "run") schulz();
}
function setTime(t) {
  view.t = Draw.clamp(Math.round(t), 0, view.steps);
  $("time").value = view.t;
  draw();
}
function play(playing) {
  view.playing = playing;
  view.hover = null;
  $("play").textContent = playing ? "Pause" : "Play";
  $("play").setAttribute("aria-pressed", String(playing));
  if (!playing) { say(`Step ${view.t}`); return; }
  if (view.t >= view.steps) setTime(0);
  let last = performance.now(), exact = view.t;
  const frame = (time) => {
    if (!view.playing) return;
    // The whole run in eight seconds; with reduced motion, four pictures a second.
    if (!calm.matches || time - last > 250) {
      exact += Math.max(0, (time - last) / 8000) * view.steps * $("speed").value;
      last = time;
      if (Math.round(exact) !== view.t) setTime(exact);
      if (view.t >= view.steps) { play(false); return; }
    }
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
$("play").addEventListener("click", () => play(!view.playing));
$("back").addEventListener("click", () => { play(false); setTime(view.t - 1); say(`Step ${view.t}`); });
$("forward").addEventListener("click", () => { play(false); setTime(view.t + 1); say(`Step ${view.t}`); });
$("time").addEventListener("input", (event) => { if (view.playing) play(false); setTime(+event.target.value); });
