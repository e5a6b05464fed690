// The beginning: the first step of the strip, or what the address says.
const redraw = () => { draw(); schulz(); drawWeight(); };
let waiting = 0;
new ResizeObserver(() => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(redraw); }).observe(document.querySelector("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
settle("tuned");
compute();
schulz();
drawWeight();
if (!recall()) goTo(0, { scroll: false });
// For tests, and for the curious.
globalThis.tour = { view, guide, data, landscapes, Rules, Matrices, runs: () => runs, settle, refresh, play, goTo, schulzSteps, polynomialsOf, recall, weightRun, asPython };
