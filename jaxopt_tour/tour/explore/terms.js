// The equation of the chosen rule, and how much each of its terms shows in this step.
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
// A share from 0 to 1, and a sentence.
const terms = {
  gradient: (run, k) => [0.35 * (run.name === "sgd" ? 2 : 1), `the gradient has length ${brief(length(run.g[k]))}`],
  momentum(run, k) {
    const turned = angle(run.info[k].before, run.info[k].used);
    const grown = length(run.info[k].before) / length(run.info[k].used);
    return [Number.isFinite(turned) ? Math.min(1, turned / 60 + 0.15 * Math.abs(Math.log(grown || 1))) : 0, `momentum turns the step by ${brief(turned)}° and makes it ${brief(grown)} gradients long`];
  },
  scale(run, k) {
    const d = run.info[k].divisors, low = Math.min(...d), high = Math.max(...d);
    return [high ? 1 - low / high : 0, low ? `the divisor is ${brief(high / low)} times larger for ${d[0] >= d[d.length - 1] ? "x" : "y"}` : "the divisor is zero: there is no step"];
  },
  delta(run, k) {
    const up = Math.max(...run.info[k].numerator);
    return [Math.min(1, 0.15 * Math.abs(Math.log10(up))), `past steps make the numerator ${brief(up)}`];
  },
  bias(run, k) {
    const c = run.info[k].correction;
    return [1 - Math.min(c, 1 / c), `bias correction multiplies the step by ${brief(c)}`];
  },
  eps(run, k) {
    const eps = run.info[k].floor ?? view.values[run.name].eps, share = Math.max(...run.info[k].divisors.map((d) => (d ? eps / d : 1)));
    return [share, `ε is ${percent(share)} of a divisor`];
  },
  decay: (run, k) => {
    const share = run.info[k].decayShare, decoupled = optimizers.get(run.name).decoupled;
    return [share, `${decoupled ? "weight decay" : "L2"} is ${percent(share)} of the ${decoupled ? "step" : "gradient"}`];
  },
  sign(run, k) {
    const sizes = run.info[k].before.map(Math.abs), ratio = Math.max(...sizes) / Math.min(...sizes);
    return [1 - 1 / ratio, `entries that differ ${brief(ratio)} times in size move equally far`];
  },
  orthogonal(run, k) {
    const before = Rules.singularValues(run.info[k].before, run.shape), after = Rules.singularValues(run.info[k].d, run.shape);
    if (before.length === 1) return [Draw.clamp(0.3 * Math.abs(Math.log10(before[0])), 0.2, 1), `a length of ${brief(before[0])} becomes ${brief(after[0])}`];
    return [1 - before[1] / before[0], `singular values ${before.map(brief).join(" and ")} become ${after.map(brief).join(" and ")}`];
  },
  units(run, k) {
    const sizes = run.info[k].units, ratio = Math.max(...sizes) / Math.min(...sizes);
    return [1 - 1 / ratio, `the units' running sizes differ by a factor of ${brief(ratio)}`];
  },
};
const isOn = (values, name) => values[name] === data.settings[name].on;
function equation() {
  const box = $("equation"), values = view.values[view.chosen];
  box.replaceChildren($(`equation-${view.chosen}`).content.cloneNode(true));
  for (const line of box.querySelectorAll("[data-when]"))
    line.hidden = !line.dataset.when.split(" ").every((each) => (each[0] === "!" ? !isOn(values, each.slice(1)) : isOn(values, each)));
}
function acting() {
  const run = runs.get(view.chosen), k = Math.min(now(), run.steps) - 1, list = $("acting");
  list.replaceChildren();
  const nodes = [...$("equation").querySelectorAll(".term")].filter((node) => !node.closest("[hidden]")), names = [...new Set(nodes.map((node) => node.dataset.term))];
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
