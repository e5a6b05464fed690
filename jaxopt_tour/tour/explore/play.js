// Time: drawing what is at this step, playing, stepping.
function draw() {
  drawMap();
  drawCharts();
  acting();
  table();
  $("step").textContent = `step ${now()}`;
  if ($("matrix").value === "run") schulz();
}
function setTime(t) {
  view.t = Draw.clamp(Math.round(t), 0, view.steps);
  $("time").value = view.t;
  draw();
}
function play(playing) {
  view.playing = playing;
  view.hover = null;
  $("play").textContent = playing ? "Pause" : "Play";
  $("play").setAttribute("aria-pressed", String(playing));
  if (!playing) { say(`Step ${view.t}`); remember(); return; }
  if (view.t >= view.steps) setTime(0);
  let last = performance.now(), exact = view.t;
  const mine = (play.count = (play.count ?? 0) + 1);
  const frame = (time) => {
    if (!view.playing || mine !== play.count) return;
    // The whole run in eight seconds; with reduced motion, four pictures a second.
    if (!calm.matches || time - last > 250) {
      exact += Math.max(0, (time - last) / 8000) * view.steps * $("speed").value;
      last = time;
      if (Math.round(exact) !== view.t) setTime(exact);
      if (view.t >= view.steps) { play(false); return; }
    }
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
const stepBy = (count) => { play(false); setTime(view.t + count); say(`Step ${view.t}`); };
$("play").addEventListener("click", () => play(!view.playing));
$("back").addEventListener("click", () => stepBy(-1));
$("forward").addEventListener("click", () => stepBy(1));
$("time").addEventListener("input", (event) => { if (view.playing) play(false); setTime(+event.target.value); remember(); });
