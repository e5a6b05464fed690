// What is chosen, as the part of the address after #: a link to it, and what a reload brings back.
const plain = (value) => String(typeof value === "number" ? +value.toPrecision(6) : value);
const shelf = { waiting: 0, ready: false };

function address() {
  const parts = new URLSearchParams();
  parts.set("guide", guide.at);
  for (const name of ["landscape", "steps", "schedule", "chosen", "t"]) parts.set(name, view[name]);
  parts.set("start", view.start.map(plain).join(" "));
  parts.set("shown", [...view.shown].join(" "));
  parts.set("quantity", $("quantity").value);
  for (const name of new Set([...view.shown, view.chosen])) {
    const usual = { rate: landscape().rates[name], ...optimizers.get(name).settings };
    const changed = Object.entries(view.values[name]).filter(([key, value]) => value !== usual[key]);
    if (changed.length) parts.set(`of.${name}`, changed.map(([key, value]) => `${key}=${plain(value)}`).join(" "));
  }
  parts.set("polynomial", view.polynomial.map(plain).join(" "));
  for (const id of ["matrix", "coefficients", "schulz-steps", "schulz-at"]) parts.set(id, $(id).value);
  return `#${parts}`;
}
// Soon, and once: sliders call this many times a second.
function remember() {
  if (!shelf.ready || view.playing) return;
  clearTimeout(shelf.waiting);
  shelf.waiting = setTimeout(() => history.replaceState(null, "", address()), 200);
}

// A value of the address as a setting has it, or undefined if it is none.
function readSetting(name, key, text) {
  const usual = key === "rate" ? 1 : optimizers.get(name).settings[key], about = data.settings[key];
  if (usual === undefined) return undefined;
  if (key === "coefficients") return text === "own" || text in data.coefficients ? text : undefined;
  if (about.scale === "switch") return [about.on, about.off].find((each) => String(each) === text);
  const value = Number(text), [from] = scales[about.scale], [low, high] = [from(about.low, about.low), from(about.high, about.low)];
  return text !== "" && value >= Math.min(low, 0) && value <= high * 1.001 ? value : undefined;
}
const among = (select, value) => [...$(select).options].some((option) => option.value === value);

function recall() {
  const parts = new URLSearchParams(location.hash.slice(1)), numbers = (name) => (parts.get(name) ?? "").split(" ").map(Number);
  shelf.ready = true;
  if (!landscapes.has(parts.get("landscape"))) return false;
  const step = data.story[+parts.get("guide")] ? +parts.get("guide") : 0;
  goTo(step, { scroll: false });
  view.landscape = parts.get("landscape");
  settle("tuned");
  own();
  if (among("length", parts.get("steps"))) view.steps = +parts.get("steps");
  if (among("schedule", parts.get("schedule"))) view.schedule = parts.get("schedule");
  if (optimizers.has(parts.get("chosen"))) view.chosen = parts.get("chosen");
  const shown = (parts.get("shown") ?? "").split(" ").filter((name) => optimizers.has(name));
  view.shown = new Set(shown.length ? shown : [view.chosen]);
  const start = numbers("start"), box = landscape().box;
  if (start.length === 2 && start.every(Number.isFinite)) view.start = start.map((each, i) => Draw.clamp(each, ...box[i]));
  for (const name of optimizers.keys())
    for (const pair of (parts.get(`of.${name}`) ?? "").split(" ")) {
      const [key, text = ""] = pair.split("="), value = key in view.values[name] ? readSetting(name, key, text) : undefined;
      if (value !== undefined) view.values[name][key] = value;
    }
  const polynomial = numbers("polynomial");
  if (polynomial.length === 3 && polynomial.every(Number.isFinite)) view.polynomial = polynomial;
  for (const id of ["quantity", "matrix", "coefficients"]) if (among(id, parts.get(id))) $(id).value = parts.get(id);
  for (const id of ["schulz-steps", "schulz-at"]) if (parts.get(id)) $(id).value = parts.get(id);
  view.t = Draw.clamp(Math.round(+parts.get("t")) || 0, 0, view.steps);
  play(false);
  refresh();
  schulzPlay(false);
  schulz();
  return true;
}
