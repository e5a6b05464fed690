// Inside Muon: a matrix, its Gram matrix, and its singular values, step by step.
const schulzView = { playing: null };

// Orthogonal matrices from a fixed sequence of numbers, so that every visit shows the same matrix.
function sampleMatrix(values) {
  const n = values.length;
  let seed = 12345;
  const random = () => { seed = (seed * 1103515245 + 12345) % 2147483648; return seed / 1073741824 - 1; };
  const orthogonal = () => {
    const rows = [];
    while (rows.length < n) {
      let row = Array.from({ length: n }, random);
      for (let pass = 0; pass < 2; pass++)
        for (const other of rows) {
          const dot = row.reduce((sum, each, i) => sum + each * other[i], 0);
          row = row.map((each, i) => each - dot * other[i]);
        }
      const long = length(row);
      rows.push(row.map((each) => each / long));
    }
    return rows;
  };
  const [u, v] = [orthogonal(), orthogonal()];
  return Array.from({ length: n * n }, (_, k) => values.reduce((sum, s, i) => sum + u[i][Math.floor(k / n)] * s * v[i][k % n], 0));
}
const spectra = {
  steep: Array.from({ length: 8 }, (_, i) => 2 ** -i),
  power: Array.from({ length: 8 }, (_, i) => 1 / (i + 1)),
  deficient: [1, 0.6, 0.3, 0.1, 0, 0, 0, 0],
};
const samples = Object.fromEntries(Object.entries(spectra).map(([name, values]) => [name, sampleMatrix(values)]));

function schulzSteps() {
  const coefficients = data.coefficients[$("coefficients").value], polynomials = coefficients.steps[$("schulz-steps").value - 1];
  let shape = [8, 8], x, values;
  if ($("matrix").value === "run") {
    const run = runs.get("muon") ?? Rules.run("muon", landscape(), view.start, settingsOf("muon"), view.steps);
    const u = run.info[Draw.clamp(Math.min(now(), run.steps) - 1, 0, run.info.length - 1)]?.before ?? [0, 0];
    [shape, x] = run.shape[1] === 1 ? [[1, 2], u] : [[2, 2], u];
    values = Rules.singularValues(x, run.shape);
  } else [x, values] = [samples[$("matrix").value], spectra[$("matrix").value]];
  const size = Rules.norm(x, shape, coefficients.prescale) || 1;
  const found = [{ x: x.map((each) => each / size), values: values.map((each) => each / size) }];
  for (const [a, b, c] of polynomials) {
    const last = found[found.length - 1];
    found.push({ x: Rules.newtonSchulz(last.x, shape, [a, b, c]), values: last.values.map((s) => s * (a + s * s * (b + c * s * s))) });
  }
  return { found, shape, polynomials };
}

function heat(canvas, values, [m, n], label) {
  const height = Math.min(230, Math.max(90, ((canvas.clientWidth || 200) * m) / n));
  const { pen, width } = Draw.open(canvas, height);
  const cell = Math.min(width / n, height / m), paper = Draw.parse(Draw.color("faint")), ends = ["vermillion", "blue"].map((name) => Draw.parse(Draw.color(name)));
  values.forEach((value, k) => {
    pen.fillStyle = `rgb(${Draw.mix(paper, ends[value < 0 ? 1 : 0], Math.min(1, Math.abs(value))).map(Math.round).join(",")})`;
    pen.fillRect((k % n) * cell + 0.5, Math.floor(k / n) * cell + 0.5, cell - 1, cell - 1);
  });
  canvas.setAttribute("aria-label", label);
}

function schulz() {
  const { found, shape, polynomials } = schulzSteps(), at = Draw.clamp(+$("schulz-at").value, 0, polynomials.length);
  Object.assign($("schulz-at"), { max: polynomials.length, value: at });
  $("schulz-now").textContent = at;
  $("schulz-count").textContent = polynomials.length;
  const { x, values } = found[at], off = (all) => Math.max(...all.map((s) => Math.abs(s - 1)));
  const text = `After ${at} of ${polynomials.length} steps: singular values ${values.map(number).join(", ")}; the farthest from one is off by ${number(off(values))}.`;
  heat($("schulz-x"), x, shape, `The matrix after step ${at}`);
  heat($("schulz-gram"), Rules.multiply(x, shape, Rules.transpose(x, shape), [shape[1], shape[0]]), [shape[0], shape[0]], `Its product with its transpose after step ${at}`);
  $("schulz-text").textContent = text;

  const { pen, width, height } = Draw.open($("schulz-values"), 230), bottom = height - 22, unit = (height - 44) / 1.7;
  const slot = (width - 30) / values.length;
  values.forEach((s, i) => {
    pen.fillStyle = Draw.color("vermillion");
    pen.fillRect(28 + slot * (i + 0.15), bottom - Math.min(1.75, s) * unit, slot * 0.7, Math.max(1, Math.min(1.75, s) * unit));
    Draw.path(pen, [[28 + slot * (i + 0.15), bottom - found[0].values[i] * unit], [28 + slot * (i + 0.85), bottom - found[0].values[i] * unit]], { stroke: Draw.color("ink"), width: 2 });
  });
  Draw.path(pen, [[28, bottom - unit], [width, bottom - unit]], { stroke: Draw.color("soft"), width: 1, dash: "4 3" });
  Draw.path(pen, [[28, bottom], [width, bottom]], { stroke: Draw.color("soft"), width: 1 });
  pen.fillStyle = Draw.color("soft");
  pen.fillText("1", 14, bottom - unit + 4);
  pen.fillText("0", 14, bottom + 4);
  pen.fillText("line: before", 28, height - 5);
  $("schulz-values").setAttribute("aria-label", text);

  const grid = Array.from({ length: 241 }, (_, i) => 10 ** (-3 + i / 80));
  const lines = Array.from({ length: at + 1 }, (_, k) => ({
    values: grid.map((s) => polynomials.slice(0, k).reduce((each, [a, b, c]) => each * (a + each * each * (b + c * each * each)), s)),
    stroke: k === at ? Draw.color("vermillion") : Draw.color("soft"), width: k === at ? 2.4 : 1, alpha: k === at ? 1 : 0.55,
  }));
  mapChart($("schulz-map"), lines, found[0].values, values);
  $("schulz-map").setAttribute("aria-label", `What ${at} steps make of a singular value between 0.001 and 1`);
}

function mapChart(canvas, lines, before, after) {
  const { pen, width, height } = Draw.open(canvas, 230), box = { left: 30, right: width - 8, top: 10, bottom: height - 22 };
  const x = (s) => box.left + ((box.right - box.left) * (Math.log10(Math.max(s, 1e-9)) + 3)) / 3, y = (v) => box.bottom - ((box.bottom - box.top) * Math.min(v, 1.9)) / 1.7;
  Draw.path(pen, [[box.left, y(1)], [box.right, y(1)]], { stroke: Draw.color("soft"), width: 1, dash: "4 3" });
  Draw.path(pen, [[box.left, box.bottom], [box.right, box.bottom]], { stroke: Draw.color("soft"), width: 1 });
  pen.fillStyle = Draw.color("soft");
  pen.textAlign = "center";
  for (const power of [-3, -2, -1, 0]) pen.fillText(Draw.short(10 ** power), Math.min(x(10 ** power), width - 8), height - 6);
  for (const v of [0, 1]) pen.fillText(String(v), 18, y(v) + 4);
  for (const line of lines) Draw.path(pen, line.values.map((v, i) => [x(10 ** (-3 + i / 80)), y(v)]), line);
  before.forEach((s, i) => { if (s >= 1e-3) Draw.dot(pen, [x(s), y(after[i])], 3.6, { fill: Draw.color("vermillion"), stroke: Draw.color("paper") }); });
}

function schulzPlay(playing) {
  clearInterval(schulzView.playing);
  schulzView.playing = null;
  $("schulz-play").setAttribute("aria-pressed", String(playing));
  $("schulz-play").textContent = playing ? "Pause" : "Run the steps";
  if (!playing) return;
  const at = $("schulz-at");
  if (+at.value >= +at.max) { at.value = 0; schulz(); }
  schulzView.playing = setInterval(() => {
    at.value = +at.value + 1;
    schulz();
    if (+at.value >= +at.max) schulzPlay(false);
  }, 900);
}
$("schulz-play").addEventListener("click", () => schulzPlay(!schulzView.playing));
$("schulz-at").addEventListener("input", () => { schulzPlay(false); schulz(); });
for (const id of ["matrix", "coefficients"]) $(id).addEventListener("change", schulz);
$("schulz-steps").addEventListener("input", () => {
  const all = $("schulz-at").value === $("schulz-at").max;
  $("schulz-at").max = $("schulz-steps").value;
  if (all) $("schulz-at").value = $("schulz-steps").value;
  schulz();
});

// --- questions that can be looked at ---

const shows = {
  "adam-adamw": () => { only("adam", "adamw"); view.values.adamw.weight_decay = 0.1; view.values.adam.l2 = 0; choose("adamw"); },
  "adam-from-adamw": () => { only("adam", "adamw"); view.values.adam.l2 = 0; view.values.adamw = { ...view.values.adam, weight_decay: 0 }; choose("adamw"); },
  "l2-adamw": () => { only("adam", "adamw"); view.values.adam.l2 = view.values.adamw.weight_decay = 1; choose("adam"); },
  escape: () => { settle("source"); view.shown = new Set(["sgd", "momentum", "adam", "muon"]); view.steps = 300; view.t = 300; choose("momentum"); },
  "muon-vector": () => { on("styblinski-tang"); only("muon", "sgd"); $("quantity").value = "spectrum"; choose("muon"); },
  "muon-matrix": () => { on("matrix-regression"); only("muon", "sgd", "adam"); $("quantity").value = "spectrum"; choose("muon"); },
  turned: () => { on("ravine"); only("adagrad", "adam", "momentum"); choose("adagrad"); },
  bias: () => { on("himmelblau"); only("adam", "rmsprop"); choose("adam"); setTime(1); },
  restless: () => { on("quadratic"); only("rmsprop", "signsgd", "muon", "sgd"); $("quantity").value = "angles"; choose("rmsprop"); },
};
const on = (name) => { view.landscape = name; settle("tuned"); };
const only = (...names) => { if (view.preset === "own") settle("tuned"); view.shown = new Set(names); own(); };
for (const button of document.querySelectorAll("[data-show]"))
  button.addEventListener("click", () => {
    play(false);
    shows[button.dataset.show]();
    document.querySelector(".bench").scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
    map.focus({ preventScroll: true });
  });

// --- the beginning ---

addEventListener("keydown", (event) => {
  if (event.target !== document.body || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " ") { event.preventDefault(); play(!view.playing); }
});
const redraw = () => { draw(); schulz(); };
let waiting = 0;
new ResizeObserver(() => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(redraw); }).observe(document.querySelector("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
settle("tuned");
refresh();
schulz();
// For tests, and for the curious.
globalThis.tour = { view, data, landscapes, Rules, runs: () => runs, settle, refresh, schulzSteps };
