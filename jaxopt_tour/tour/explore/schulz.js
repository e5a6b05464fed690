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
  const { polynomials, prescale } = polynomialsOf($("coefficients").value, +$("schulz-steps").value);
  let shape = [8, 8], x;
  if ($("matrix").value === "run") {
    const run = runs.get("muon") ?? Rules.run("muon", landscape(), view.start, settingsOf("muon"), view.steps);
    x = run.info[Draw.clamp(Math.min(now(), run.steps) - 1, 0, run.info.length - 1)]?.before ?? [0, 0];
    shape = run.shape[1] === 1 ? [1, 2] : [2, 2];
  } else x = samples[$("matrix").value];
  const start = Matrices.scaled(x, shape, Matrices.prescale(x, shape, prescale));
  const found = [{ x: start, values: Matrices.singularValues(start, shape) }];
  for (const [a, b, c] of polynomials) {
    const last = found[found.length - 1];
    found.push({ x: Matrices.newtonSchulz(last.x, shape, [a, b, c]), values: last.values.map((s) => s * (a + s * s * (b + c * s * s))) });
  }
  return { found, shape, polynomials };
}

function heat(canvas, values, [m, n], label, scale = 1) {
  const height = Math.min(230, Math.max(90, ((canvas.clientWidth || 200) * m) / n));
  const { pen, width } = Draw.open(canvas, height);
  const cell = Math.min(width / n, height / m), paper = Draw.parse(Draw.color("faint")), ends = ["vermillion", "blue"].map((name) => Draw.parse(Draw.color(name)));
  values.forEach((value, k) => {
    const share = Number.isFinite(value) ? Math.min(1, Math.abs(value) / scale) : 1;
    pen.fillStyle = `rgb(${Draw.mix(paper, ends[value < 0 ? 1 : 0], share).map(Math.round).join(",")})`;
    pen.fillRect((k % n) * cell + 0.5, Math.floor(k / n) * cell + 0.5, cell - 1, cell - 1);
  });
  canvas.setAttribute("aria-label", label);
}

function schulz() {
  const { found, shape, polynomials } = schulzSteps(), at = Draw.clamp(+$("schulz-at").value, 0, polynomials.length), fixed = data.coefficients[$("coefficients").value]?.fixed;
  Object.assign($("schulz-at"), { max: polynomials.length, value: at });
  $("schulz-now").textContent = at;
  $("schulz-count").textContent = polynomials.length;
  $("schulz-steps").disabled = Boolean(fixed);
  const { x, values } = found[at], off = Math.max(...values.map((s) => Math.abs(s - 1)));
  const text = `After ${at} of ${polynomials.length} steps: singular values ${values.map(brief).join(", ")}; the farthest from one is off by ${brief(off)}.`;
  heat($("schulz-x"), x, shape, `The matrix after step ${at}`);
  heat($("schulz-gram"), Matrices.multiply(x, shape, Matrices.transpose(x, shape), [shape[1], shape[0]]), [shape[0], shape[0]], `Its product with its transpose after step ${at}`);
  $("schulz-text").textContent = text;
  bars($("schulz-values"), values, found[0].values, $("schulz-log").checked);
  $("schulz-values").setAttribute("aria-label", text);
  const grid = Array.from({ length: 241 }, (_, i) => 10 ** (-3 + i / 80));
  const lines = Array.from({ length: at + 1 }, (_, k) => ({
    values: grid.map((s) => polynomials.slice(0, k).reduce((each, [a, b, c]) => each * (a + each * each * (b + c * each * each)), s)),
    stroke: k === at ? Draw.color("vermillion") : Draw.color("soft"), width: k === at ? 2.4 : 1, alpha: k === at ? 1 : 0.55,
  }));
  mapChart($("schulz-map"), lines, found[0].values, values);
  $("schulz-map").setAttribute("aria-label", `What ${at} steps make of a singular value between 0.001 and 1`);
  const [a, b, c] = polynomials[Math.max(0, at - 1)];
  for (const [name, value] of [["a", a], ["b", b], ["c", c]]) {
    $(`schulz-${name}`).value = value;
    $(`schulz-${name}-value`).textContent = value.toFixed(value && Math.abs(value) < 10 ? 3 : 2).replace(/\.?0+$/, "").replace("-", "−");
  }
}

// Bars of singular values with a mark at where they began; on a log axis from 0.001 on.
function bars(canvas, values, before, log) {
  const { pen, width, height } = Draw.open(canvas, 230), left = 34, bottom = height - 22, high = height - 44;
  const tall = log ? (s) => high * Draw.clamp((Math.log10(Math.max(Math.abs(s), 1e-9)) + 3) / 3.3, 0, 1.05) : (s) => (high * Draw.clamp(Math.abs(s), 0, 1.75)) / 1.7;
  const slot = (width - left - 2) / values.length;
  values.forEach((s, i) => {
    pen.fillStyle = Draw.color("vermillion");
    const size = Math.max(1, tall(s)), from = left + slot * (i + 0.15), to = left + slot * (i + 0.85), mark = bottom - tall(before[i]);
    pen.fillRect(from, bottom - size, to - from, size);
    Draw.path(pen, [[from, mark], [to, mark]], { stroke: Draw.color("ink"), width: 2 });
  });
  Draw.path(pen, [[left, bottom - tall(1)], [width, bottom - tall(1)]], { stroke: Draw.color("soft"), width: 1, dash: "4 3" });
  Draw.path(pen, [[left, bottom], [width, bottom]], { stroke: Draw.color("soft"), width: 1 });
  pen.fillStyle = Draw.color("soft");
  pen.textAlign = "right";
  for (const s of log ? [0.001, 0.01, 0.1, 1] : [0, 1]) pen.fillText(Draw.short(s), left - 5, bottom - tall(s) + 4);
  pen.textAlign = "left";
  pen.fillText("line: before", left, height - 5);
}

function mapChart(canvas, lines, before, after) {
  const { pen, width, height } = Draw.open(canvas, 230), box = { left: 30, right: width - 8, top: 10, bottom: height - 22 };
  const x = (s) => box.left + ((box.right - box.left) * (Math.log10(Math.max(s, 1e-9)) + 3)) / 3, y = (v) => box.bottom - ((box.bottom - box.top) * Draw.clamp(v, -0.1, 1.9)) / 1.7;
  Draw.path(pen, [[box.left, y(1)], [box.right, y(1)]], { stroke: Draw.color("soft"), width: 1, dash: "4 3" });
  Draw.path(pen, [[box.left, box.bottom], [box.right, box.bottom]], { stroke: Draw.color("soft"), width: 1 });
  pen.fillStyle = Draw.color("soft");
  pen.textAlign = "center";
  for (const power of [-3, -2, -1, 0]) pen.fillText(Draw.short(10 ** power), Draw.clamp(x(10 ** power), 14, width - 8), height - 6);
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
function setSchulz({ matrix, coefficients, steps, at }) {
  for (const [id, value] of [["matrix", matrix], ["coefficients", coefficients], ["schulz-steps", steps], ["schulz-at", calm.matches ? steps : at]]) $(id).value = value;
  schulz();
  schulzPlay(!calm.matches);
}
$("schulz-play").addEventListener("click", () => schulzPlay(!schulzView.playing));
$("schulz-at").addEventListener("input", () => { schulzPlay(false); schulz(); });
$("schulz-log").addEventListener("change", schulz);
$("matrix").addEventListener("change", () => { schulz(); remember(); });
$("coefficients").addEventListener("change", () => { schulz(); remember(); });
$("schulz-steps").addEventListener("input", () => {
  const all = $("schulz-at").value === $("schulz-at").max;
  $("schulz-at").max = $("schulz-steps").value;
  if (all) $("schulz-at").value = $("schulz-steps").value;
  schulz();
  remember();
});
// Dragging a, b or c makes a polynomial of one's own out of the one of this step.
["a", "b", "c"].forEach((name, i) => $(`schulz-${name}`).addEventListener("input", (event) => {
  if ($("coefficients").value !== "own") view.polynomial = ["a", "b", "c"].map((each) => +$(`schulz-${each}`).value);
  view.polynomial[i] = +event.target.value;
  schulzPlay(false);
  $("coefficients").value = "own";
  schulz();
  if ([...runs.keys()].some((each) => view.values[each].coefficients === "own")) refreshRule();
  remember();
}));
