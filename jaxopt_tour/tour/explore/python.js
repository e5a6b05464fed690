// The chosen run as a program with the library.
const literal = (value) => (value === true ? "True" : value === false ? "False" : typeof value === "string" ? JSON.stringify(value) : String(+value.toPrecision(12)));
function asPython() {
  const { call, arguments: fixed, settings } = optimizers.get(view.chosen), values = view.values[view.chosen], [module, name] = call.split(".");
  const rate = view.schedule === "linear" ? `optax.linear_schedule(${literal(values.rate)}, 0.0, ${view.steps})` : literal(values.rate);
  const parts = [rate, ...Object.entries({ ...fixed, ...values }).filter(([key]) => key !== "rate" && key !== "coefficients" && key !== "steps").map(([key, value]) => `${key}=${literal(value)}`)];
  if ("coefficients" in settings) {
    const own = values.coefficients === "own", fixedSteps = data.coefficients[values.coefficients]?.fixed;
    parts.push(`orthogonalizer=${own ? `((${view.polynomial.map(literal).join(", ")}),) * ${values.steps}` : `jt.coefficients.${values.coefficients}(${fixedSteps ? "" : values.steps})`}`);
  }
  return [
    "import jaxopt_tour as jt", ...(view.schedule === "linear" ? ["import optax"] : []),
    "from jaxopt_tour.problems.landscapes import make_landscape", ...(module === "presets" ? ["from jaxopt_tour.tour import presets"] : []),
    "from jaxopt_tour.tour.rollout import rollout", "", `tx = ${module}.${name}(${parts.join(", ")})`,
    `run = rollout(tx, make_landscape(${literal(view.landscape)}), ${view.steps}, start=(${view.start.map(literal).join(", ")}))`, "print(run.loss[-1])", "",
  ].join("\n");
}
async function copyPython() {
  const text = asPython(), box = $("python");
  Object.assign(box, { textContent: text, hidden: false });
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
    $("copy").textContent = "Copied";
  } catch {
    // No clipboard: the text is selected, to be copied by hand.
    getSelection().selectAllChildren(box);
    $("copy").textContent = "Press Ctrl+C";
  }
  setTimeout(() => { $("copy").textContent = "Copy as Python"; }, 2000);
}
// The map as it is drawn, under a name that says what it shows.
function mapAsPng() {
  const link = html("a", "");
  Object.assign(link, { href: map.toDataURL("image/png"), download: `${view.landscape}-step-${now()}.png` });
  link.click();
  say("The map is saved");
  return link;
}
