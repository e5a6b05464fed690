"use strict";
(() => {
  const tasks = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const UNITS = {
    validation_loss: ["Validation loss", "nats"],
    train_loss: ["Training loss", "nats"],
    validation_accuracy: ["Validation accuracy", "percent"],
  };

  // Text reaches the page as text nodes and attributes only.
  const element = (name, attributes = {}, parent = null, text = null) => {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== null) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const html = (name, className, parent, text = null) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== null) node.textContent = text;
    parent.append(node);
    return node;
  };
  const swatch = (one, parent) => {
    const icon = element("svg", { class: `swatch hue-${one.hue}`, width: 22, height: 10 }, parent);
    element("line", { x1: 1, y1: 5, x2: 21, y2: 5, "stroke-dasharray": one.dash }, icon);
  };

  // --- numbers ---

  const decimals = (value, digits) => Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value) || 1)));
  const show = (value, measure) =>
    measure === "validation_accuracy" ? `${(100 * value).toFixed(1)} %`
      : Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-4) ? value.toExponential(2) : value.toFixed(decimals(value, 4));
  const showX = (value, axis) => (axis === "step" ? `step ${value.toLocaleString("en")}` : `${value.toFixed(decimals(value, 3))} s`);

  const roundTicks = (low, high, count) => {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw * 0.999) * power;
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9); k++) ticks.push(+(k * step).toPrecision(12));
    return ticks;
  };
  const logTicks = (low, high) => {
    for (const mantissas of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]]) {
      const ticks = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
        for (const mantissa of mantissas) {
          const tick = +(mantissa * 10 ** power).toPrecision(12);
          if (tick >= low && tick <= high) ticks.push(tick);
        }
      if (ticks.length >= 4) return ticks;
    }
    return roundTicks(low, high, 5);
  };
  const tickText = (value, ticks, measure) => {
    const scaled = measure === "validation_accuracy" ? ticks.map((tick) => 100 * tick) : ticks;
    const number = measure === "validation_accuracy" ? 100 * value : value;
    if (Math.abs(number) >= 1e5 || (number && Math.abs(number) < 1e-3)) return number.toExponential(0);
    const places = Math.max(...scaled.map((tick) => (String(+tick.toPrecision(6)).split(".")[1] || "").length));
    return number.toLocaleString("en", { minimumFractionDigits: measure ? places : 0, maximumFractionDigits: places });
  };

  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const widthOf = (text) => pen.measureText(text).width;

  // --- one chart ---

  class Chart {
    constructor(figure, task, view) {
      Object.assign(this, { figure, task, view, axis: figure.dataset.x });
      this.box = figure.querySelector(".plot");
      this.caption = figure.querySelector("figcaption");
      new ResizeObserver(() => {
        if (Math.abs(this.box.clientWidth - this.width) > 1) this.draw();
      }).observe(this.box);
    }

    draw() {
      const { axis, view, box } = this;
      const measure = view.measure;
      const shown = this.task.series.filter((one, index) => view.visible.has(index) && one[measure]);
      const [title, unit] = UNITS[measure];
      this.hide();
      box.replaceChildren();
      this.width = box.clientWidth;
      const width = this.width;
      if (width < 80) return; // not laid out yet: the observer calls again
      const height = Math.round(Math.min(420, Math.max(270, width * 0.7)));

      // The domains hold what is shown; a run that blows up leaves at the top instead of flattening the rest.
      const values = [];
      const last = [];
      const first = [];
      let right = 0;
      for (const one of shown) {
        const known = one[measure].filter((value) => value !== null);
        if (known.length) first.push(known[0]);
        if (known.length && !one.diverged) last.push(known[known.length - 1]);
        for (const key of [measure, `${measure}_low`, `${measure}_high`])
          for (const value of one[key] || []) if (value !== null) values.push(value);
        for (let i = 0; i < one.step.length; i++) if (one[measure][i] !== null) right = Math.max(right, one[axis][i] ?? 0);
      }
      const loss = measure !== "validation_accuracy";
      let low = values.length ? Math.min(...values) : 0.1;
      let high = values.length ? Math.max(...values) : 1;
      const middle = first.sort((a, b) => a - b)[first.length >> 1];
      if (loss) high = Math.min(high, Math.max(1.1 * middle, 1.15 * Math.max(0, ...last)) || 1);
      // Accuracies begin near chance and differ near the top: the axis leaves room there.
      else if (last.length) low = Math.max(low, Math.min(...last) - Math.max(0.05, 2 * (Math.max(...last) - Math.min(...last))));
      const log = loss && low > 0 && high / low > 1.5;
      this.caption.replaceChildren(document.createTextNode(title));
      html("span", "", this.caption, ` against ${axis === "step" ? "steps" : "seconds of training"}`);
      if (!shown.length || !(right > 0)) {
        html("p", "facts", box, shown.length ? "Nothing was measured." : "No optimizer is chosen.");
        return;
      }
      const pad = log ? (high / low) ** 0.03 : 0.04 * (high - low || 1);
      if (log) { low /= pad; high *= pad; } else { low = Math.max(0, low - pad); high = loss ? high + pad : Math.min(1, high + pad); }
      if (!(high > low)) high = low + 1;

      const named = width >= 480 && shown.length <= 16;
      const margin = { top: 20, right: named ? 42 + Math.max(...shown.map((one) => widthOf(one.label))) : 14, bottom: 40, left: 46 };
      const plotRight = width - margin.right, plotBottom = height - margin.bottom;
      const px = (x) => margin.left + ((plotRight - margin.left) * x) / right;
      const ratio = log ? (y) => Math.log(y / low) / Math.log(high / low) : (y) => (y - low) / (high - low);
      const py = (y) => plotBottom - (plotBottom - margin.top) * ratio(y);
      const inside = (y) => Math.max(margin.top - 30, Math.min(plotBottom + 30, py(y)));

      const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "img" }, box);
      const clip = `clip-${Math.random().toString(36).slice(2)}`;
      element("rect", { x: margin.left, y: margin.top - 4, width: plotRight - margin.left + 5, height: plotBottom - margin.top + 4 },
        element("clipPath", { id: clip }, element("defs", {}, svg)));

      const yTicks = log ? logTicks(low, high) : roundTicks(low, high, 5);
      for (const tick of yTicks) {
        element("line", { class: "grid", x1: margin.left, x2: plotRight, y1: py(tick), y2: py(tick) }, svg);
        element("text", { x: margin.left - 7, y: py(tick) + 4, "text-anchor": "end" }, svg, tickText(tick, yTicks, measure));
      }
      element("text", { x: 0, y: 10 }, svg, unit + (log ? ", log scale" : ""));
      const xTicks = roundTicks(0, right, width < 430 ? 4 : 6);
      for (const tick of xTicks) {
        element("line", { class: "axis", x1: px(tick), x2: px(tick), y1: plotBottom, y2: plotBottom + 4 }, svg);
        element("text", { x: px(tick), y: plotBottom + 17, "text-anchor": "middle" }, svg, tickText(tick, xTicks, ""));
      }
      element("line", { class: "axis", x1: margin.left, x2: plotRight, y1: plotBottom, y2: plotBottom }, svg);
      element("text", { x: (margin.left + plotRight) / 2, y: plotBottom + 34, "text-anchor": "middle" }, svg, axis === "step" ? "steps" : "seconds");

      // Worst first, so that the best lies on top.
      const ends = [];
      this.groups = new Map();
      for (const one of [...shown].reverse()) {
        const group = element("g", { class: `hue-${one.hue}` }, svg);
        const clipped = element("g", { "clip-path": `url(#${clip})` }, group);
        const points = [];
        let line = "", up = "", down = "", broken = true;
        const lows = one[`${measure}_low`], highs = one[`${measure}_high`];
        one.step.forEach((_, i) => {
          const x = one[axis][i], y = one[measure][i];
          if (x === null || y === null || (log && y <= 0)) { broken = true; return; }
          line += `${broken ? "M" : "L"}${px(x).toFixed(1)} ${inside(y).toFixed(1)}`;
          broken = false;
          if (lows && lows[i] !== null) {
            up += `${up ? "L" : "M"}${px(x).toFixed(1)} ${inside(highs[i]).toFixed(1)}`;
            down = `L${px(x).toFixed(1)} ${inside(log && lows[i] <= 0 ? low : lows[i]).toFixed(1)}` + down;
          }
          points.push({ x, y, at: one.step[i] });
        });
        if (up) element("path", { class: "band", d: `${up}${down}Z` }, clipped);
        element("path", { class: "line", d: line, "stroke-dasharray": one.dash }, clipped);
        this.groups.set(one, { group, points });
        if (!points.length) continue;
        const tail = points[points.length - 1];
        const end = { one, group, x: px(tail.x), y: Math.max(margin.top, Math.min(plotBottom, py(tail.y))) };
        if (one.diverged) element("path", { class: "cross", d: `M${end.x - 4} ${end.y - 4}l8 8m0 -8l-8 8` }, group);
        else element("circle", { class: "end", cx: end.x, cy: end.y, r: 2.6 }, group);
        ends.push(end);
      }
      if (named) this.name(ends, plotRight, margin.top, plotBottom);

      const ranked = shown.map((one) => [one, one[measure].filter((value) => value !== null).pop()]).filter((pair) => pair[1] !== undefined);
      ranked.sort((a, b) => (loss ? a[1] - b[1] : b[1] - a[1]));
      svg.setAttribute("aria-label", `${title} against ${axis === "step" ? "steps" : "seconds"}. At the end: ` +
        ranked.map(([one, value]) => `${one.label} ${one.diverged ? "diverged" : show(value, measure)}`).join(", ") + ". Arrow keys move along the curves.");
      Object.assign(this, { svg, px, py, plotRight, plotBottom, margin, right, shown });
      const point = (event) => {
        const bounds = svg.getBoundingClientRect();
        this.at(((event.clientX - bounds.left - margin.left) / (plotRight - margin.left)) * right, event.clientY - bounds.top);
      };
      svg.addEventListener("pointermove", point);
      svg.addEventListener("pointerdown", point);
      svg.addEventListener("pointerleave", () => this.hide());
      svg.addEventListener("blur", () => this.hide());
      svg.addEventListener("keydown", (event) => {
        const grid = [...new Set(shown.flatMap((one) => this.groups.get(one).points.map((point) => point.x)))].sort((a, b) => a - b);
        const here = this.cursor === undefined ? -1 : grid.findIndex((x) => x >= this.cursor - 1e-9);
        const stride = axis === "step" ? 1 : Math.max(1, shown.length);
        const move = { ArrowRight: here + stride, ArrowLeft: (here < 0 ? grid.length : here) - stride, Home: 0, End: grid.length - 1 }[event.key];
        if (event.key === "Escape") this.hide();
        if (move === undefined) return;
        event.preventDefault();
        this.at(grid[Math.max(0, Math.min(grid.length - 1, move))], null);
      });
      this.focus(view.focus);
    }

    // Names stand at the right edge, as near to their line's end as their neighbors allow.
    name(ends, edge, top, bottom) {
      ends.sort((a, b) => a.y - b.y || a.x - b.x);
      const gap = Math.min(14, (bottom - top + 14) / ends.length);
      for (const end of ends) end.label = end.y;
      for (let round = 0; round < 60; round++)
        for (let i = 1; i < ends.length; i++) {
          const over = gap - (ends[i].label - ends[i - 1].label);
          if (over > 0) { ends[i].label += over / 2; ends[i - 1].label -= over / 2; }
        }
      let floor = top - 4;
      for (const end of ends) { end.label = Math.max(end.label, floor); floor = end.label + gap; }
      let ceiling = bottom + 6;
      for (const end of [...ends].reverse()) { end.label = Math.min(end.label, ceiling); ceiling = end.label - gap; }
      for (const end of ends) {
        element("path", { class: "lead", d: `M${end.x + 3} ${end.y}L${edge + 4} ${end.y}L${edge + 12} ${end.label}` }, end.group);
        element("path", { class: "line", d: `M${edge + 12} ${end.label}h18`, "stroke-dasharray": end.one.dash }, end.group);
        element("text", { class: "name", x: edge + 35, y: end.label + 4 }, end.group, end.one.label);
      }
    }

    // The values of every line at one place on the x axis.
    at(x, pointerY) {
      for (const other of this.view.charts) if (other !== this) other.unmark();
      const { axis, shown, view, svg, box } = this;
      const measure = view.measure, loss = measure !== "validation_accuracy";
      x = Math.max(0, Math.min(this.right, x));
      const found = [];
      for (const one of shown) {
        const { points } = this.groups.get(one);
        if (!points.length) continue;
        const spacing = points.length > 1 ? (points[points.length - 1].x - points[0].x) / (points.length - 1) : Infinity;
        let best = points[0];
        for (const point of points) if (Math.abs(point.x - x) < Math.abs(best.x - x)) best = point;
        if (Math.abs(best.x - x) <= spacing) found.push({ one, ...best });
      }
      this.hide();
      if (!found.length) return;
      this.cursor = x;
      found.sort((a, b) => (loss ? a.y - b.y : b.y - a.y));
      const layer = element("g", { "pointer-events": "none" }, svg);
      const line = axis === "step" ? found.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a)).x : x;
      element("line", { class: "cursor", x1: this.px(line), x2: this.px(line), y1: this.margin.top, y2: this.plotBottom }, layer);
      const tip = html("div", "tip", box);
      html("b", "", tip, showX(line, axis));
      let near = null;
      if (pointerY !== null) for (const one of found) {
        const distance = Math.abs(this.py(one.y) - pointerY);
        if (distance < 14 && (!near || distance < near.distance)) near = { one, distance };
      }
      for (const item of found) {
        const y = this.py(item.y);
        if (y >= this.margin.top - 4) element("circle", { class: `mark hue-${item.one.hue}`, cx: this.px(item.x), cy: y, r: 3.2 }, layer);
        const row = html("div", near && near.one === item ? "near" : "", tip);
        swatch(item.one, row);
        html("span", "", row, item.one.label);
        html("i", "", row, show(item.y, measure));
      }
      for (const other of this.view.charts) if (other !== this) other.mark(found);
      const wide = tip.offsetWidth, place = this.px(line);
      tip.style.left = `${place + 14 + wide < this.width ? place + 14 : Math.max(0, place - 14 - wide)}px`;
      tip.style.top = `${this.margin.top}px`;
      Object.assign(this, { tip, layer });
      if (near) this.focus(this.task.series.indexOf(near.one.one)); else this.focus(view.focus);
      if (pointerY === null) view.live.textContent = `${showX(line, axis)}: ${found.map((item) => `${item.one.label} ${show(item.y, measure)}`).join(", ")}`;
    }

    // The same training steps in the other chart: a dot on every line.
    mark(found) {
      this.unmark();
      if (!this.svg?.isConnected) return;
      this.twin = element("g", { "pointer-events": "none", class: "twin" }, this.svg);
      for (const { one, at } of found) {
        const point = this.groups.get(one)?.points.find((each) => each.at === at);
        if (point && this.py(point.y) >= this.margin.top - 4) element("circle", { class: `mark hue-${one.hue}`, cx: this.px(point.x), cy: this.py(point.y), r: 3.2 }, this.twin);
      }
    }

    unmark() {
      this.twin?.remove();
      this.twin = undefined;
    }

    hide() {
      for (const other of this.view.charts ?? []) other.unmark();
      this.tip?.remove();
      this.layer?.remove();
      this.tip = this.layer = this.cursor = undefined;
      if (this.groups) this.focus(this.view.focus);
    }

    focus(index) {
      for (const [one, { group }] of this.groups || []) {
        const front = index !== null && this.task.series[index] === one;
        group.classList.toggle("dim", index !== null && !front && this.groups.has(this.task.series[index]));
        group.classList.toggle("front", front);
      }
    }
  }

  // --- one task: its charts, its legend, its table ---

  for (const section of document.querySelectorAll("section.task")) {
    const task = tasks[+section.dataset.task];
    const view = { measure: "validation_loss", visible: new Set(task.series.keys()), focus: null };
    view.live = html("p", "hidden", section);
    view.live.setAttribute("aria-live", "polite");
    const charts = [...section.querySelectorAll(".chart")].map((figure) => new Chart(figure, task, view));
    view.charts = charts;
    const draw = () => charts.forEach((chart) => chart.draw());
    const boxes = [...section.querySelectorAll(".chip input")];
    boxes.forEach((box, index) => box.addEventListener("change", () => {
      view.visible[box.checked ? "add" : "delete"](index);
      draw();
    }));
    const setAll = (checked) => {
      boxes.forEach((box) => { box.checked = checked; });
      view.visible = new Set(checked ? task.series.keys() : []);
      draw();
    };
    section.querySelector("[data-all]").addEventListener("click", () => setAll(true));
    section.querySelector("[data-none]").addEventListener("click", () => setAll(false));
    for (const radio of section.querySelectorAll(".measures input"))
      radio.addEventListener("change", () => { view.measure = radio.value; draw(); });
    for (const node of section.querySelectorAll("[data-series]")) {
      const focus = (index) => { view.focus = index; charts.forEach((chart) => chart.focus(index)); };
      node.addEventListener("pointerenter", () => focus(+node.dataset.series));
      node.addEventListener("pointerleave", () => focus(null));
    }
    // A browser may bring back the boxes of the last visit.
    boxes.forEach((box, index) => { if (!box.checked) view.visible.delete(index); });
    view.measure = section.querySelector(".measures input:checked").value;
    draw();

    const table = section.querySelector(".results");
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [left, right] = [value(a), value(b)];
        if (!left || !right) return !left - !right; // what diverged stays at the bottom
        return order * (column ? left - right : left.localeCompare(right));
      });
      table.tBodies[0].append(...rows);
    }));
  }

  // Paper has no pointer: it gets the routing as well, and charts of its own width.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((node) => { node.open = true; }));
})();
