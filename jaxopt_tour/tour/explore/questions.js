// Ten questions: a reply to every option, another try, and the bench set to look at the answer.
const answered = new Map();
function reply(question, button) {
  const right = button.dataset.right === "true", all = [...document.querySelectorAll(".question")];
  button.className = right ? "right" : "wrong";
  button.nextElementSibling.hidden = false;
  question.querySelector(".after").textContent = right ? "Right." : "Not quite: try again, or look.";
  question.querySelector(".again").hidden = false;
  if (!answered.has(question)) answered.set(question, right);
  $("score").textContent = `${answered.size} of ${all.length} answered, ${[...answered.values()].filter(Boolean).length} right at the first try.`;
}
function tryAgain(question) {
  for (const button of question.querySelectorAll("ul button")) { button.className = ""; button.nextElementSibling.hidden = true; }
  question.querySelector(".after").textContent = "";
  question.querySelector(".again").hidden = true;
  question.querySelector("ul button").focus();
}
for (const question of document.querySelectorAll(".question")) {
  for (const button of question.querySelectorAll("ul button")) button.addEventListener("click", () => reply(question, button));
  question.querySelector(".again").addEventListener("click", () => tryAgain(question));
}

const shows = {
  "adam-adamw": () => { on("styblinski-tang"); only("adam", "adamw"); view.values.adamw.weight_decay = 0.1; view.values.adam.l2 = 0; choose("adamw"); },
  "adam-from-adamw": () => { on("styblinski-tang"); only("adam", "adamw"); view.values.adam.l2 = 0; view.values.adamw = { ...view.values.adam, weight_decay: 0 }; choose("adamw"); },
  "l2-adamw": () => { on("styblinski-tang"); only("adam", "adamw"); view.values.adam.l2 = view.values.adamw.weight_decay = 1; choose("adam"); },
  escape: () => { settle("source"); view.shown = new Set(["sgd", "momentum", "adam", "muon"]); view.steps = 300; view.t = 300; choose("momentum"); },
  "muon-vector": () => { on("styblinski-tang"); only("muon", "sgd"); $("quantity").value = "spectrum"; choose("muon"); },
  "muon-matrix": () => { on("matrix-regression"); only("muon", "sgd", "adam"); $("quantity").value = "spectrum"; choose("muon"); },
  turned: () => { on("ravine"); only("adagrad", "adam", "momentum"); choose("adagrad"); },
  bias: () => { on("himmelblau"); only("adam", "rmsprop"); $("quantity").value = "rho"; choose("adam"); setTime(1); },
  restless: () => { on("quadratic"); only("rmsprop", "signsgd", "muon", "sgd"); $("quantity").value = "angles"; choose("rmsprop"); },
  zero: () => { $("matrix").value = "deficient"; $("schulz-at").value = $("schulz-at").max; schulz(); },
};
const on = (name) => { view.landscape = name; view.steps = 300; settle("tuned"); };
const only = (...names) => { view.shown = new Set(names); own(); };
for (const button of document.querySelectorAll("[data-show]"))
  button.addEventListener("click", () => {
    const name = button.dataset.show;
    play(false);
    shows[name]();
    (name === "zero" ? $("schulz") : document.querySelector(".bench")).scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
    (name === "zero" ? $("schulz-play") : map).focus({ preventScroll: true });
  });
