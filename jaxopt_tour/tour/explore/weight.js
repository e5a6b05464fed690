// An 8x8 weight: steepest descent under four norms, on all of it or on each head.
const weightView = { t: 0, playing: null, runs: null, key: "" };
const W8 = { n: 8, shape: [8, 8], zero: new Array(64).fill(0) };

// The direction of unit norm along which the loss falls fastest; with heads, of each block of rows by itself.
function dualDirection(norm, gradient, heads) {
  const rows = W8.n / heads, found = [];
  for (let head = 0; head < heads; head++) {
    const block = gradient.slice(head * rows * W8.n, (head + 1) * rows * W8.n), shape = [rows, W8.n];
    const long = length(block), columns = Array.from({ length: W8.n }, (_, j) => Math.hypot(...block.filter((_, k) => k % W8.n === j)));
    if (norm === "spectral") found.push(...Matrices.orthogonalize(block, shape, data.coefficients.polar_express.steps[4], data.coefficients.polar_express.prescale));
    else if (norm === "l2") found.push(...block.map((each) => (long ? each / long : 0)));
    else if (norm === "linf") found.push(...block.map(Math.sign));
    else found.push(...block.map((each, k) => (columns[k % W8.n] ? each / columns[k % W8.n] : 0)));
  }
  return found;
}
function weightRun(norm, split) {
  const { target, gram, steps, heads, norms } = data.weight, rate = norms[norm].rates[+split];
  const slope = (w) => Matrices.multiply(w.map((each, i) => each - target[i]), W8.shape, gram, W8.shape);
  const loss = (w, g) => 0.5 * g.reduce((sum, each, i) => sum + each * (w[i] - target[i]), 0);
  const found = { w: [W8.zero], g: [slope(W8.zero)], d: [], loss: [] };
  for (let t = 1; t <= steps; t++) {
    const w = found.w[t - 1], d = dualDirection(norm, found.g[t - 1], split ? heads : 1).map((each) => -rate * (1 - (t - 1) / steps) * each);
    found.d.push(d);
    found.w.push(w.map((each, i) => each + d[i]));
    found.g.push(slope(found.w[t]));
  }
  found.loss = found.w.map((w, t) => loss(w, found.g[t]));
  return found;
}
function weightRuns() {
  const split = $("weight-heads").checked, key = String(split);
  if (weightView.key !== key) {
    weightView.runs = Object.fromEntries(Object.keys(data.weight.norms).map((norm) => [norm, weightRun(norm, split)]));
    weightView.key = key;
  }
  return weightView.runs;
}

function drawWeight() {
  const all = weightRuns(), norm = $("weight-norm").value, run = all[norm], t = weightView.t, steps = data.weight.steps, k = Math.min(t, steps - 1);
  const values = (x) => Matrices.singularValues(x, W8.shape), hueOf = (name) => Draw.color(data.weight.norms[name].hue);
  const largest = (x) => Math.max(...x.map(Math.abs), 1e-12), shade = largest(data.weight.target);
  heat($("weight-target"), data.weight.target, W8.shape, "The target W*", shade);
  heat($("weight-w"), run.w[t], W8.shape, `The weight after step ${t}`, shade);
  heat($("weight-g"), run.g[k].map((each) => -each), W8.shape, `The negative gradient at step ${k + 1}`, largest(run.g[k]));
  heat($("weight-d"), run.d[k], W8.shape, `Step ${k + 1}`, largest(run.d[k]));
  const line = (x, stroke, dash = "", width = 2) => ({ values: values(x), stroke, dash, width, first: 1 });
  const ofChosen = [line(run.g[k], Draw.color("soft"), "2 2"), line(run.d[k], hueOf(norm), "", 2.6), line(run.w[t], Draw.color("blue"), "6 3"), line(data.weight.target, Draw.color("ink"), "", 1)];
  const floor = (lines) => Math.max(1e-5, Math.min(...lines.flatMap((each) => each.values.filter((s) => s > 1e-9))));
  Draw.chart($("weight-values"), ofChosen, { steps: 8, log: true, low: floor(ofChosen), note: "log scale; largest first" });
  const byNorm = Object.keys(all).map((name) => ({ ...line(all[name].d[k], hueOf(name)), width: name === norm ? 2.8 : 1.6 }));
  Draw.chart($("weight-norms"), byNorm, { steps: 8, log: true, low: floor(byNorm), note: "log scale; largest first" });
  const losses = Object.keys(all).map((name) => ({ values: all[name].loss, stroke: hueOf(name), width: name === norm ? 2.8 : 1.6 }));
  Draw.chart($("weight-loss"), losses, { steps, log: true, at: t, note: "log scale" });
  const g = values(run.g[k]), d = values(run.d[k]);
  const text = `Step ${k + 1}: the gradient's singular values range from ${brief(g[0])} to ${brief(g[7])}, those of the step from ${brief(d[0])} to ${brief(d[7])}. ` +
    `Loss after ${t} steps: ${Object.keys(all).map((name) => `${data.weight.norms[name].short} ${brief(all[name].loss[t])}`).join(", ")}.`;
  $("weight-text").textContent = text;
  for (const id of ["weight-values", "weight-norms", "weight-loss"]) $(id).setAttribute("aria-label", text);
  $("weight-at").value = t;
  $("weight-now").textContent = t;
}
function weightPlay(playing) {
  clearInterval(weightView.playing);
  weightView.playing = null;
  $("weight-play").setAttribute("aria-pressed", String(playing));
  $("weight-play").textContent = playing ? "Pause" : "Play";
  if (!playing) return;
  if (weightView.t >= data.weight.steps) weightView.t = 0;
  weightView.playing = setInterval(() => {
    weightView.t++;
    drawWeight();
    if (weightView.t >= data.weight.steps) weightPlay(false);
  }, calm.matches ? 400 : 150);
}
function setWeight({ norm, heads }) {
  $("weight-norm").value = norm;
  $("weight-heads").checked = heads;
  weightView.t = calm.matches ? 10 : 0;
  drawWeight();
  weightPlay(!calm.matches);
}
$("weight-play").addEventListener("click", () => weightPlay(!weightView.playing));
$("weight-at").addEventListener("input", (event) => { weightPlay(false); weightView.t = +event.target.value; drawWeight(); });
for (const id of ["weight-norm", "weight-heads"]) $(id).addEventListener("change", drawWeight);
