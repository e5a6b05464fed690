// The controls of the bench: which rules run, the settings of the chosen one, the landscape; and the table.
function shownValue(name, value) {
  if (name === "eps" || (value && value < 1e-3)) return value.toExponential(1);
  // Decay rates near one differ in their last digits.
  return String(+value.toPrecision(["beta", "b1", "b2"].includes(name) && value > 0.99 ? 4 : 3));
}
function coefficientsSetting(box, values) {
  const label = html("label", "", box, "coefficients");
  const select = $("coefficients").cloneNode(true);
  Object.assign(select, { id: "set-coefficients", value: values.coefficients });
  label.append(select);
  select.addEventListener("change", () => { values.coefficients = select.value; own(); sliders(); refreshRule(); });
}
function switchSetting(box, name, values) {
  const about = data.settings[name], label = html("label", "switch", box), input = html("input", "", label);
  Object.assign(input, { type: "checkbox", id: `set-${name}`, checked: isOn(values, name) });
  html("span", "", label, about.label);
  input.addEventListener("change", () => { values[name] = input.checked ? about.on : about.off; own(); equation(); refreshRule(); });
}
function slider(box, name, values) {
  const about = data.settings[name], [from, to] = scales[about.scale], whole = about.scale === "integer";
  const label = html("label", "", box, about.label), input = html("input", "", label);
  const fixed = name === "steps" && data.coefficients[values.coefficients]?.fixed;
  Object.assign(input, { type: "range", id: `set-${name}`, min: about.low, max: about.high, step: whole ? 1 : 0.01, value: to(fixed || values[name], about.low), disabled: Boolean(fixed) });
  const output = html("output", "", label, fixed ? String(fixed) : shownValue(name, values[name]));
  output.htmlFor = input.id;
  input.setAttribute("aria-valuetext", output.textContent);
  input.addEventListener("input", () => {
    values[name] = from(+input.value, about.low);
    output.textContent = shownValue(name, values[name]);
    input.setAttribute("aria-valuetext", output.textContent);
    own();
    refreshRule();
  });
}
function sliders() {
  const box = $("settings"), values = view.values[view.chosen];
  box.replaceChildren();
  const names = ["rate", ...Object.keys(optimizers.get(view.chosen).settings)];
  for (const name of names) if (data.settings[name] && data.settings[name].scale !== "switch") slider(box, name, values);
  if (names.includes("coefficients")) coefficientsSetting(box, values);
  const row = html("div", "switches", box);
  for (const name of names) if (data.settings[name]?.scale === "switch") switchSetting(row, name, values);
}
function choose(name) {
  view.chosen = name;
  view.shown.add(name);
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
  $("schedule").value = view.schedule;
  $("formula").replaceChildren($(`formula-${view.landscape}`).content.cloneNode(true));
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
$("copy").addEventListener("click", copyPython);
$("png").addEventListener("click", mapAsPng);
$("landscape").addEventListener("change", (event) => { view.landscape = event.target.value; settle("tuned"); refresh(); });
$("preset").addEventListener("change", (event) => { settle(event.target.value); refresh(); });
$("length").addEventListener("change", (event) => { view.steps = +event.target.value; view.t = view.steps; refresh(); });
$("schedule").addEventListener("change", (event) => { view.schedule = event.target.value; own(); refresh(); });

function table() {
  const body = $("now"), t = now(), names = shownRuns();
  while (body.rows.length > names.length) body.deleteRow(-1);
  names.forEach((name, i) => {
    let row = body.rows[i];
    if (!row) {
      row = body.insertRow();
      html("th", "", row).scope = "row";
      for (let k = 0; k < 7; k++) row.insertCell();
    }
    const run = runs.get(name), end = Math.min(t, run.steps), [x, y] = landscape().coordinates(run.x[end]), step = run.update[end - 1];
    const texts = [run.diverged && end === run.steps ? `${end}, diverged` : String(end), brief(run.loss[end]), brief(run.loss[end] - lowest()), place3(x), place3(y),
      step ? brief(length(step)) : "–", step ? `${brief(Math.round(angle(step, run.g[end - 1].map((each) => -each))))}°` : "–"];
    if (row.cells[0].dataset.name !== name) {
      row.cells[0].dataset.name = name;
      row.cells[0].replaceChildren(document.querySelector(`.one[data-name="${name}"] svg`).cloneNode(true), optimizers.get(name).title);
    }
    texts.forEach((text, k) => { row.cells[k + 1].textContent = text; });
  });
}
