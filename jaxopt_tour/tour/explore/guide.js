// The guided strip: eight steps, each of which sets what it talks about. It stands above the section it is about.
const guide = { at: 0 };

// A bench from plain data: a landscape, a start, rules with settings, a chart, a step.
function setBench(bench) {
  view.landscape = bench.landscape;
  settle("tuned");
  view.preset = "own";
  if (bench.start) view.start = [...bench.start];
  view.steps = bench.steps;
  view.schedule = bench.schedule ?? "constant";
  view.shown = new Set(bench.shown);
  view.chosen = bench.chosen;
  for (const [name, values] of Object.entries(bench.values ?? {})) Object.assign(view.values[name], values);
  $("quantity").value = bench.quantity;
  view.t = calm.matches ? bench.still : bench.at ?? 0;
  refresh();
  play(!calm.matches);
}
const sectionOf = { bench: () => document.querySelector(".bench"), weight: () => $("weight"), schulz: () => $("schulz") };

function goTo(at, { scroll = true, focus = false } = {}) {
  const story = data.story, step = story[at], node = $("guide"), next = story[at + 1];
  guide.at = at;
  $("guide-count").textContent = at ? `Step ${at} of ${story.length - 1}` : "In a nutshell";
  $("guide-title").textContent = step.title;
  $("guide-text").textContent = step.text;
  $("guide-back").disabled = at === 0;
  $("guide-next").textContent = next ? `${at ? "Next" : "Start"}: ${next.title}` : "From the beginning";
  for (const dot of document.querySelectorAll("#guide-dots button")) {
    const here = +dot.dataset.step === at;
    if (here) dot.setAttribute("aria-current", "step"); else dot.removeAttribute("aria-current");
  }
  sectionOf[step.place]().before(node);
  if (step.bench) setBench(step.bench); else play(false);
  if (step.weight) setWeight(step.weight); else weightPlay(false);
  if (step.schulz) setSchulz(step.schulz); else schulzPlay(false);
  if (scroll) node.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
  if (focus) $("guide-next").focus({ preventScroll: true });
  remember();
}
const turnGuide = (by, options) => {
  const at = guide.at + by;
  if (at >= 0) goTo(at < data.story.length ? at : 0, options);
};
$("guide-next").addEventListener("click", () => turnGuide(1, { focus: true }));
$("guide-back").addEventListener("click", () => turnGuide(-1));
$("guide-dots").addEventListener("click", (event) => {
  const dot = event.target.closest("button");
  if (dot) goTo(+dot.dataset.step);
});
// Arrow keys turn the steps, from the strip and where nothing else has the keys.
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inGuide = $("guide").contains(event.target), free = event.target === document.body;
  if (free && event.key === " ") { event.preventDefault(); play(!view.playing); }
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by && (inGuide || free)) { event.preventDefault(); turnGuide(by, { focus: inGuide }); }
});
