// Two charts against the step: the loss of every rule, and what the chosen rule does.
let lossPlace = null, detailPlace = null;
function drawCharts() {
  const t = now(), bottom = lowest(), floor = 1e-12 * Math.max(1, Math.abs(bottom));
  const lines = shownRuns().map((name) => ({
    values: runs.get(name).loss.map((each) => Math.max(each - bottom, floor)), stroke: hue(name), dash: optimizers.get(name).dash, width: name === view.chosen ? 2.6 : 1.6,
  }));
  const high = Math.max(...lines.flatMap((line) => [line.values[0]]), 1e-9) * 3;
  const low = Math.max(1e-8, Math.min(...lines.flatMap((line) => line.values.filter(Number.isFinite)), high / 10));
  lossPlace = Draw.chart($("loss"), lines, { steps: view.steps, log: true, low, high, at: t, note: "log scale" });
  $("loss").setAttribute("aria-label", `Loss above the lowest value against ${view.steps} steps. ` + shownRuns()
    .map((name) => [optimizers.get(name).title, runs.get(name)])
    .map(([title, run]) => `${title} ends at ${run.diverged ? "nowhere: it diverged" : brief(run.loss[run.steps] - bottom)}`).join(", "));
  drawDetail(t);
}
const angle = (a, b) => {
  const long = length(a) * length(b);
  return long ? (Math.acos(Draw.clamp(a.reduce((sum, each, i) => sum + each * b[i], 0) / long, -1, 1)) * 180) / Math.PI : NaN;
};
const coordinateStyles = ["", "6 3", "2 3", "8 3 2 3"];

// What each choice of the second chart draws: [lines, options of the chart, a legend].
const quantities = {
  rates(run, steps, own) {
    const lines = run.x[0].map((_, i) => ({ values: steps.map((k) => effective(run, k)[i]), stroke: own, dash: coordinateStyles[i], width: 1.8, first: 1 }));
    return [lines, { log: true, note: "|step| / |gradient|, log scale" }, run.shape[1] === 1 ? "Full line: x. Dashed: y." : "One line an entry of the weight."];
  },
  state(run, steps, own) {
    const lines = [{ values: run.g.slice(0, -1).map((g) => -direction(g)[0]), stroke: Draw.color("soft"), dash: "2 2", first: 1 }];
    if (momentumOf(run)) lines.push({ values: run.m.map((m) => -direction(m)[0]), stroke: Draw.color("blue"), width: 1.8, first: 1 });
    const biggest = Math.max(...run.g.map((g) => Math.abs(direction(g)[0])), 1e-12), longest = Math.max(...run.update.map((u) => Math.abs(direction(u)[0])), 1e-12);
    lines.push({ values: run.update.map((u) => (direction(u)[0] / longest) * biggest), stroke: own, width: 2.2, first: 1 });
    return [lines, { note: "first coordinate" }, `Dotted: −gradient. Blue: −momentum. Full: the step, enlarged ${brief(biggest / longest)} times.`];
  },
  angles(run, steps, own) {
    const lines = [
      { values: steps.map((k) => angle(run.update[k], run.g[k].map((each) => -each))), stroke: own, width: 2, first: 1 },
      { values: steps.map((k) => (k ? angle(run.update[k], run.update[k - 1]) : NaN)), stroke: Draw.color("soft"), dash: "3 3", first: 1 },
    ];
    return [lines, { low: 0, high: 180, note: "degrees", marks: [90] }, "Full: to steepest descent. Dashed: to the step before."];
  },
  spectrum(run, steps, own) {
    const of = (vectors, i) => vectors.map((vector) => Rules.singularValues(vector, run.shape)[i] ?? NaN), lines = [];
    for (const i of run.shape[1] === 1 ? [0] : [0, 1]) {
      lines.push({ values: of(run.g.slice(0, -1), i), stroke: Draw.color("soft"), dash: "2 2", first: 1 });
      if (momentumOf(run)) lines.push({ values: of(run.m, i), stroke: Draw.color("blue"), dash: "6 3", first: 1 });
      lines.push({ values: of(run.update, i), stroke: own, width: 2.2, first: 1 });
    }
    const low = Math.max(1e-8, Math.min(...lines.flatMap((line) => line.values.filter((each) => each > 0)), 1));
    return [lines, { log: true, note: "log scale", low }, `Dotted: gradient. Blue: momentum. Full: step.${run.shape[1] === 1 ? " A 2×1 matrix has one singular value, its length." : ""}`];
  },
  // Bias correction multiplies Adam's step by rho(t), whether or not it is switched on.
  rho(run, steps, own) {
    const h = view.values[run.name];
    if (!("b1" in h && "b2" in h) || run.name === "lion") return [[], {}, "Only rules with averages m and v have bias correction: choose Adam, AdamW, LaProp or EAdam."];
    const off = h.bias_correction === false;
    const lines = [
      { values: steps.map((k) => Rules.rho(h, k + 1)), stroke: own, width: 2.2, dash: off ? "4 4" : "", first: 1 },
      { values: steps.map((k) => 1 - h.b1 ** (k + 1)), stroke: Draw.color("blue"), dash: "6 3", first: 1 },
      { values: steps.map((k) => 1 - h.b2 ** (k + 1)), stroke: Draw.color("soft"), dash: "2 2", first: 1 },
    ];
    return [lines, { low: 0, high: Math.max(1.2, ...lines[0].values), note: "factor", marks: [1] },
      `Full: ρ(t) = √(1 − β₂ᵗ) / (1 − β₁ᵗ)${off ? ", switched off" : ""}. Blue: 1 − β₁ᵗ, the weight that m has gathered. Dotted: 1 − β₂ᵗ, that of v.`];
  },
};
function drawDetail(t) {
  const run = runs.get(view.chosen), steps = run.update.map((_, i) => i);
  const [lines, options, text] = quantities[$("quantity").value](run, steps, hue(view.chosen));
  detailPlace = Draw.chart($("detail"), lines, { steps: view.steps, at: t, ...options });
  $("legend").textContent = text;
  const title = optimizers.get(view.chosen).title, chosen = $("quantity").selectedOptions[0].textContent;
  $("detail").setAttribute("aria-label", `${title}: ${chosen}, step ${t}: ${lines.map((line) => brief(line.values[Math.min(t, run.steps) - 1])).join(", ")}. ${text}`);
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
$("quantity").addEventListener("change", () => { drawDetail(now()); remember(); });
