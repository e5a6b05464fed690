// Drawing on canvases, in CSS pixels, with the colors of the style sheet.
const Draw = (() => {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

  function open(canvas, height) {
    const width = canvas.clientWidth || 300, ratio = Math.min(2, devicePixelRatio || 1);
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    Object.assign(pen, { lineJoin: "round", textAlign: "left" });
    return { pen, width, height, ratio };
  }

  const dashes = (text) => text.split(" ").filter(Boolean).map(Number);

  function path(pen, points, { stroke, width = 1.6, dash = "", alpha = 1 }) {
    pen.save();
    Object.assign(pen, { strokeStyle: stroke, lineWidth: width, globalAlpha: alpha });
    pen.setLineDash(dashes(dash));
    pen.beginPath();
    let down = false;
    for (const [x, y] of points) {
      if (!Number.isFinite(x) || !Number.isFinite(y)) { down = false; continue; }
      pen[down ? "lineTo" : "moveTo"](clamp(x, -4e3, 8e3), clamp(y, -4e3, 8e3));
      down = true;
    }
    pen.stroke();
    pen.restore();
  }

  function arrow(pen, [x, y], [dx, dy], { stroke, width = 2, dash = "" }) {
    const long = Math.hypot(dx, dy);
    if (!(long > 2)) return;
    path(pen, [[x, y], [x + dx, y + dy]], { stroke, width, dash });
    const [ux, uy] = [dx / long, dy / long], size = Math.min(8, 0.5 * long + 3);
    pen.save();
    pen.fillStyle = stroke;
    pen.beginPath();
    pen.moveTo(x + dx + ux * 2, y + dy + uy * 2);
    pen.lineTo(x + dx - ux * size - uy * size * 0.5, y + dy - uy * size + ux * size * 0.5);
    pen.lineTo(x + dx - ux * size + uy * size * 0.5, y + dy - uy * size - ux * size * 0.5);
    pen.fill();
    pen.restore();
  }

  function dot(pen, [x, y], r, { fill, stroke, width = 1.5 }) {
    pen.beginPath();
    pen.arc(x, y, r, 0, 2 * Math.PI);
    if (fill) { pen.fillStyle = fill; pen.fill(); }
    if (stroke) { Object.assign(pen, { strokeStyle: stroke, lineWidth: width }); pen.stroke(); }
  }

  function star(pen, [x, y], r, { fill, stroke }) {
    pen.beginPath();
    for (let i = 0; i < 10; i++) {
      const angle = -Math.PI / 2 + (i * Math.PI) / 5, radius = i % 2 ? r * 0.45 : r;
      pen.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
    }
    pen.closePath();
    Object.assign(pen, { fillStyle: fill, strokeStyle: stroke, lineWidth: 1.2 });
    pen.fill();
    pen.stroke();
  }

  // --- the ground: bands of equal shares of the box, finest where it is lowest ---

  const BANDS = 15;
  const mix = (a, b, t) => a.map((each, i) => each + (b[i] - each) * t);
  const parse = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

  function ground(landscape, width, height) {
    const [[left, right], [bottom, top]] = landscape.box;
    const value = (i, j) => landscape.f(landscape.params([left + ((right - left) * (i + 0.5)) / width, top - ((top - bottom) * (j + 0.5)) / height]));
    const sample = [];
    for (let i = 0; i < 90; i++) for (let j = 0; j < 90; j++) sample.push(value((i * width) / 90, (j * height) / 90));
    sample.sort((a, b) => a - b);
    const edges = Array.from({ length: BANDS - 1 }, (_, k) => sample[Math.floor(((k + 1) / BANDS) ** (1 / 0.6) * (sample.length - 1))]);
    const shades = ["low", "high"].map((end) => parse(color(`ground-${end}`)));
    const edge = parse(color("ground-line"));
    const picture = document.createElement("canvas");
    Object.assign(picture, { width, height });
    const pen = picture.getContext("2d"), image = pen.createImageData(width, height);
    const bands = new Uint8Array(width * height);
    for (let j = 0; j < height; j++)
      for (let i = 0; i < width; i++) {
        const v = value(i, j);
        let low = 0, high = edges.length;
        while (low < high) { const middle = (low + high) >> 1; if (edges[middle] < v) low = middle + 1; else high = middle; }
        bands[j * width + i] = low;
      }
    for (let j = 0; j < height; j++)
      for (let i = 0; i < width; i++) {
        const k = j * width + i, band = bands[k];
        const border = (i && bands[k - 1] !== band) || (j && bands[k - width] !== band);
        const shade = mix(shades[0], shades[1], (band / (BANDS - 1)) ** 0.8);
        const final = border ? mix(shade, edge, 0.45) : shade;
        for (let c = 0; c < 3; c++) image.data[4 * k + c] = final[c];
        image.data[4 * k + 3] = 255;
      }
    pen.putImageData(image, 0, 0);
    return picture;
  }

  // --- charts against the step ---

  const ticks = (low, high, count) => {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw || 1));
    const size = ([1, 2, 2.5, 5, 10].find((each) => each * power >= raw * 0.999) || 10) * power, found = [];
    for (let k = Math.ceil(low / size - 1e-9); k * size <= high * (1 + 1e-9) + 1e-12; k++) found.push(+(k * size).toPrecision(12));
    return found;
  };
  const powers = (low, high) => {
    const from = Math.ceil(Math.log10(low) - 1e-9), to = Math.floor(Math.log10(high) + 1e-9), every = Math.max(1, Math.ceil((to - from) / 5)), found = [];
    for (let p = from; p <= to; p += every) found.push(10 ** p);
    return found;
  };
  const oneTwoFive = (low, high) => {
    const found = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) for (const digit of [1, 2, 5]) found.push(+`${digit}e${p}`);
    return found.filter((v) => v >= low && v <= high);
  };
  const short = (x) => (x === 0 ? "0" : Math.abs(x) >= 1e4 || Math.abs(x) < 1e-2 ? x.toExponential(0).replace("e", "e") : String(+x.toPrecision(3)));

  // Lines {values, stroke, dash, width, alpha, first}; returns where the steps are, for the pointer.
  function chart(canvas, lines, { height = 210, steps, log = false, low, high, at, note = "", marks = [] }) {
    const { pen, width } = open(canvas, height);
    const box = { left: 46, right: width - 10, top: 18, bottom: height - 24 };
    const place = { x: (t) => box.left + ((box.right - box.left) * t) / Math.max(1, steps), step: (x) => ((x - box.left) / (box.right - box.left)) * steps, box };
    const values = lines.flatMap((line) => line.values.filter((v) => Number.isFinite(v) && (!log || v > 0)));
    pen.fillStyle = color("soft");
    pen.fillText(note, 2, 11);
    if (!values.length) { pen.fillText("nothing to show", box.left + 8, box.top + 24); return place; }
    let bottom = low ?? Math.min(...values), top = high ?? Math.max(...values);
    if (log && !(top / bottom > 1.05)) { top *= 2; bottom /= 2; }
    if (!log && !(top > bottom)) { top += 1; bottom -= 1; }
    if (!log && low === undefined) { const pad = 0.05 * (top - bottom); top += pad; bottom -= pad; }
    const share = log ? (v) => Math.log(v / bottom) / Math.log(top / bottom) : (v) => (v - bottom) / (top - bottom);
    const y = (v) => box.bottom - (box.bottom - box.top) * clamp(share(v), -0.5, 1.5);
    pen.textAlign = "right";
    let grid = log ? powers(bottom, top) : ticks(bottom, top, 4);
    if (log && grid.length < 3) grid = oneTwoFive(bottom, top);
    if (log && grid.length < 2) grid = ticks(bottom, top, 3).filter((v) => v > 0);
    for (const v of grid) {
      path(pen, [[box.left, y(v)], [box.right, y(v)]], { stroke: color("rule"), width: 1 });
      pen.fillText(short(v), box.left - 6, y(v) + 4);
    }
    pen.textAlign = "center";
    for (const t of ticks(0, steps, width < 420 ? 3 : 5)) pen.fillText(String(t), place.x(t), height - 7);
    pen.save();
    pen.beginPath();
    pen.rect(box.left, box.top - 2, box.right - box.left + 3, box.bottom - box.top + 4);
    pen.clip();
    for (const line of lines)
      path(pen, line.values.map((v, i) => [place.x(i + (line.first || 0)), log && !(v > 0) ? NaN : y(v)]), line);
    for (const mark of marks) path(pen, [[box.left, y(mark)], [box.right, y(mark)]], { stroke: color("soft"), width: 1, dash: "3 3" });
    if (at !== undefined) {
      path(pen, [[place.x(at), box.top], [place.x(at), box.bottom]], { stroke: color("soft"), width: 1, dash: "2 2" });
      for (const line of lines) {
        const v = line.values[at - (line.first || 0)];
        if (Number.isFinite(v) && (!log || v > 0)) dot(pen, [place.x(at), y(v)], 3, { fill: line.stroke });
      }
    }
    pen.restore();
    return place;
  }

  return { color, open, path, arrow, dot, star, ground, chart, clamp, short, mix, parse };
})();
