// What is chosen, and the runs that follow from it.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const { length } = Rules;
const landscapes = new Map(data.landscapes.map((each) => [each.name, Landscapes.make(each)]));
const optimizers = new Map(data.optimizers.map((each) => [each.name, each]));
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const view = {
  landscape: "matrix-steep", start: null, steps: 50, schedule: "constant", t: 0, hover: null, playing: false, chosen: "muon",
  preset: "tuned", shown: new Set(data.optimizers.filter((each) => each.shown).map((each) => each.name)), values: {},
  polynomial: [...data.coefficients.keller_jordan.steps[0][0]],
};
let runs = new Map();

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
const written = (x, digits) => (!Number.isFinite(x) ? "–" : x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(digits - 1) : String(+x.toPrecision(digits)));
// Two digits in sentences and tables, three where one looks up a place.
const brief = (x) => (Math.abs(x) >= 100 && Math.abs(x) < 1e5 ? String(Math.round(x)) : written(x, 2));
const place3 = (x) => written(x, 3);

const scales = {
  log: [(p) => 10 ** p, (v) => Math.log10(v)],
  "decay-rate": [(p) => 1 - 10 ** -p, (v) => -Math.log10(1 - v)],
  "zero-log": [(p, low) => (p <= low ? 0 : 10 ** p), (v, low) => (v > 0 ? Math.log10(v) : low)],
  integer: [(p) => Math.round(p), (v) => v],
};

function settle(preset) {
  view.preset = preset;
  view.schedule = "constant";
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
function own() { view.preset = "own"; }

// The polynomials of every Newton-Schulz step: a named table, or the reader's a, b, c at each.
function polynomialsOf(name, steps) {
  if (name === "own") return { polynomials: Array.from({ length: steps }, () => [...view.polynomial]), prescale: "frobenius" };
  const { steps: tables, prescale, fixed } = data.coefficients[name];
  return { polynomials: fixed ? tables[0] : tables[steps - 1], prescale };
}
function settingsOf(name) {
  const values = { ...view.values[name], schedule: view.schedule };
  return "coefficients" in values ? { ...values, ...polynomialsOf(values.coefficients, values.steps) } : values;
}

function compute() {
  runs = new Map();
  for (const name of optimizers.keys())
    if (view.shown.has(name) || name === view.chosen) runs.set(name, Rules.run(name, landscape(), view.start, settingsOf(name), view.steps));
  view.t = Math.min(view.t, view.steps);
  const time = $("time");
  time.max = view.steps;
  time.value = view.t;
}
function refresh() { compute(); panel(); draw(); remember(); }
function refreshRule() { compute(); $("preset").value = view.preset; draw(); remember(); }
